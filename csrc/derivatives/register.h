#pragma once

// One function a file; each registers its kernels.
namespace functorch_ext {

void register_attention_derivatives();
void register_bags_derivatives();
void register_ctc_derivatives();
void register_distances_derivatives();
void register_embedding_derivatives();
void register_fake_quantization_derivatives();
void register_linalg_derivatives();
void register_linear_derivatives();
void register_losses_derivatives();
void register_margins_derivatives();
void register_normalization_derivatives();
void register_norms_derivatives();
void register_products_derivatives();
void register_reinterpreted_derivatives();
void register_segments_derivatives();
void register_softmax_derivatives();
void register_sparse_derivatives();
void register_special_derivatives();
void register_tangent_writes_derivatives();
void register_view_copies_derivatives();
void register_zero_tangents_derivatives();

inline void register_derivatives() {
  register_attention_derivatives();
  register_bags_derivatives();
  register_ctc_derivatives();
  register_distances_derivatives();
  register_embedding_derivatives();
  register_fake_quantization_derivatives();
  register_linalg_derivatives();
  register_linear_derivatives();
  register_losses_derivatives();
  register_margins_derivatives();
  register_normalization_derivatives();
  register_norms_derivatives();
  register_products_derivatives();
  register_reinterpreted_derivatives();
  register_segments_derivatives();
  register_softmax_derivatives();
  register_sparse_derivatives();
  register_special_derivatives();
  register_tangent_writes_derivatives();
  register_view_copies_derivatives();
  register_zero_tangents_derivatives();
}

}  // namespace functorch_ext
