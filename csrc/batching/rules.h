#pragma once

// One function a file; each registers the rules of its file.
namespace functorch_ext {

void register_activations_rules();
void register_attention_rules();
void register_attention_cuda_rules();
void register_attention_layers_rules();
void register_convolution_rules();
void register_convolution_kernels_rules();
void register_copies_rules();
void register_ctc_rules();
void register_distances_rules();
void register_dropout_rules();
void register_dual_rules();
void register_embedding_rules();
void register_factories_rules();
void register_foreach_rules();
void register_gather_scatter_rules();
void register_histograms_rules();
void register_indexing_rules();
void register_joining_rules();
void register_keyed_random_rules();
void register_layer_norm_rules();
void register_likelihood_rules();
void register_linalg_rules();
void register_losses_rules();
void register_matmul_rules();
void register_max_pooling_rules();
void register_normalization_rules();
void register_padding_rules();
void register_pointwise_rules();
void register_pooling_rules();
void register_quantization_rules();
void register_random_rules();
void register_rearranging_rules();
void register_recurrent_rules();
void register_recurrent_cells_rules();
void register_recurrent_cudnn_rules();
void register_recurrent_packed_rules();
void register_reductions_rules();
void register_resampling_rules();
void register_scalars_rules();
void register_scaled_matmul_rules();
void register_scans_rules();
void register_segments_rules();
void register_selection_rules();
void register_sorting_rules();
void register_sparse_rules();
void register_spectral_rules();
void register_storages_rules();
void register_view_copies_rules();
void register_views_rules();

// The families by the names of their files.
struct RuleFamily {
  const char* name;
  void (*register_rules)();
};
inline constexpr RuleFamily rule_families[] = {
    {"activations", register_activations_rules},
    {"attention", register_attention_rules},
    {"attention_cuda", register_attention_cuda_rules},
    {"attention_layers", register_attention_layers_rules},
    {"convolution", register_convolution_rules},
    {"convolution_kernels", register_convolution_kernels_rules},
    {"copies", register_copies_rules},
    {"ctc", register_ctc_rules},
    {"distances", register_distances_rules},
    {"dropout", register_dropout_rules},
    {"dual", register_dual_rules},
    {"embedding", register_embedding_rules},
    {"factories", register_factories_rules},
    {"foreach", register_foreach_rules},
    {"gather_scatter", register_gather_scatter_rules},
    {"histograms", register_histograms_rules},
    {"indexing", register_indexing_rules},
    {"joining", register_joining_rules},
    {"keyed_random", register_keyed_random_rules},
    {"layer_norm", register_layer_norm_rules},
    {"likelihood", register_likelihood_rules},
    {"linalg", register_linalg_rules},
    {"losses", register_losses_rules},
    {"matmul", register_matmul_rules},
    {"max_pooling", register_max_pooling_rules},
    {"normalization", register_normalization_rules},
    {"padding", register_padding_rules},
    {"pointwise", register_pointwise_rules},
    {"pooling", register_pooling_rules},
    {"quantization", register_quantization_rules},
    {"random", register_random_rules},
    {"rearranging", register_rearranging_rules},
    {"recurrent", register_recurrent_rules},
    {"recurrent_cells", register_recurrent_cells_rules},
    {"recurrent_cudnn", register_recurrent_cudnn_rules},
    {"recurrent_packed", register_recurrent_packed_rules},
    {"reductions", register_reductions_rules},
    {"resampling", register_resampling_rules},
    {"scalars", register_scalars_rules},
    {"scaled_matmul", register_scaled_matmul_rules},
    {"scans", register_scans_rules},
    {"segments", register_segments_rules},
    {"selection", register_selection_rules},
    {"sorting", register_sorting_rules},
    {"sparse", register_sparse_rules},
    {"spectral", register_spectral_rules},
    {"storages", register_storages_rules},
    {"view_copies", register_view_copies_rules},
    {"views", register_views_rules},
};

// The kernels of random operators as the program calls them; call it after all of these.
void register_random_kernels();

}  // namespace functorch_ext
