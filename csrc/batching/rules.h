#pragma once

// One function a family; each registers the rules of its file.
namespace functorch_ext {

void register_activations_rules();
void register_attention_rules();
void register_convolution_rules();
void register_copies_rules();
void register_distances_rules();
void register_dual_rules();
void register_embedding_rules();
void register_factories_rules();
void register_gather_scatter_rules();
void register_histograms_rules();
void register_indexing_rules();
void register_joining_rules();
void register_linalg_rules();
void register_losses_rules();
void register_matmul_rules();
void register_normalization_rules();
void register_padding_rules();
void register_pointwise_rules();
void register_pooling_rules();
void register_quantization_rules();
void register_random_rules();
void register_rearranging_rules();
void register_recurrent_rules();
void register_reductions_rules();
void register_resampling_rules();
void register_scalars_rules();
void register_scaled_matmul_rules();
void register_scans_rules();
void register_segments_rules();
void register_selection_rules();
void register_sorting_rules();
void register_spectral_rules();
void register_storages_rules();
void register_views_rules();

// The families by the names of their files.
struct RuleFamily {
  const char* name;
  void (*register_rules)();
};
inline constexpr RuleFamily rule_families[] = {
    {"activations", register_activations_rules},
    {"attention", register_attention_rules},
    {"convolution", register_convolution_rules},
    {"copies", register_copies_rules},
    {"distances", register_distances_rules},
    {"dual", register_dual_rules},
    {"embedding", register_embedding_rules},
    {"factories", register_factories_rules},
    {"gather_scatter", register_gather_scatter_rules},
    {"histograms", register_histograms_rules},
    {"indexing", register_indexing_rules},
    {"joining", register_joining_rules},
    {"linalg", register_linalg_rules},
    {"losses", register_losses_rules},
    {"matmul", register_matmul_rules},
    {"normalization", register_normalization_rules},
    {"padding", register_padding_rules},
    {"pointwise", register_pointwise_rules},
    {"pooling", register_pooling_rules},
    {"quantization", register_quantization_rules},
    {"random", register_random_rules},
    {"rearranging", register_rearranging_rules},
    {"recurrent", register_recurrent_rules},
    {"reductions", register_reductions_rules},
    {"resampling", register_resampling_rules},
    {"scalars", register_scalars_rules},
    {"scaled_matmul", register_scaled_matmul_rules},
    {"scans", register_scans_rules},
    {"segments", register_segments_rules},
    {"selection", register_selection_rules},
    {"sorting", register_sorting_rules},
    {"spectral", register_spectral_rules},
    {"storages", register_storages_rules},
    {"views", register_views_rules},
};

}  // namespace functorch_ext
