#pragma once

// One function a family; each registers the rules of its file.
namespace functorch_ext {

void register_convolution_rules();
void register_copies_rules();
void register_distances_rules();
void register_dual_rules();
void register_embedding_rules();
void register_factories_rules();
void register_indexing_rules();
void register_joining_rules();
void register_linalg_rules();
void register_losses_rules();
void register_matmul_rules();
void register_normalization_rules();
void register_pointwise_rules();
void register_pooling_rules();
void register_random_rules();
void register_rearranging_rules();
void register_reductions_rules();
void register_scattering_rules();
void register_sorting_rules();
void register_spectral_rules();
void register_views_rules();

inline void register_batching_rules() {
  register_convolution_rules();
  register_copies_rules();
  register_distances_rules();
  register_dual_rules();
  register_embedding_rules();
  register_factories_rules();
  register_indexing_rules();
  register_joining_rules();
  register_linalg_rules();
  register_losses_rules();
  register_matmul_rules();
  register_normalization_rules();
  register_pointwise_rules();
  register_pooling_rules();
  register_random_rules();
  register_rearranging_rules();
  register_reductions_rules();
  register_scattering_rules();
  register_sorting_rules();
  register_spectral_rules();
  register_views_rules();
}

}  // namespace functorch_ext
