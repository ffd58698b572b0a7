// The fused layers that modules of torch.nn use where they see no gradient: multi-head attention
// and a transformer's encoder layer. They are computed of operators that batch and differentiate.
#include "batching/attention.h"
#include "batching/composed.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;

// What mask_type says of a mask.
enum MaskType : int64_t { OfScores = 0, OfKeys = 1, OfHeads = 2 };

// Which (N, heads, queries, keys) count; the mask tells which don't.
OptionalTensor counted(const OptionalTensor& mask, std::optional<int64_t> mask_type) {
  if (!mask || !mask->defined()) {
    return {};
  }
  const auto counts = at::eq(*mask, 0);
  const bool of_keys = mask_type ? *mask_type == OfKeys : false;
  return of_keys ? counts.unsqueeze(1).unsqueeze(1) : counts;
}

// (N, length, features) as (N, heads, length, features of a head).
at::Tensor heads_of(const at::Tensor& tensor, int64_t heads) {
  return tensor.unflatten(-1, {heads, -1}).transpose(1, 2);
}

Two multi_head_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                         int64_t embed_dim, int64_t heads, const at::Tensor& qkv_weight,
                         const at::Tensor& qkv_bias, const at::Tensor& proj_weight,
                         const at::Tensor& proj_bias, const OptionalTensor& mask, bool need_weights,
                         bool average_weights, std::optional<int64_t> mask_type) {
  TORCH_CHECK(qkv_weight.sym_size(0) == 3 * embed_dim && qkv_bias.sym_size(0) == 3 * embed_dim,
              "multi-head attention: expected the weights and biases of 3 * ", embed_dim,
              " outputs, but got shapes ", qkv_weight.sym_sizes(), " and ", qkv_bias.sym_sizes());
  const auto weights = qkv_weight.chunk(3);
  const auto biases = qkv_bias.chunk(3);
  const auto projected = [&](const at::Tensor& tensor, int64_t which) {
    return heads_of(at::linear(tensor, weights[which], biases[which]), heads);
  };
  const auto queries = projected(query, 0);
  const auto keys = projected(key, 1);
  const auto values = projected(value, 2);
  const auto mask_of_scores = additive_mask(counted(mask, mask_type), query.scalar_type());
  at::Tensor mixed;
  at::Tensor scores;
  if (need_weights) {
    std::tie(mixed, scores) =
        at::_scaled_dot_product_attention_math(queries, keys, values, mask_of_scores);
    scores = average_weights ? scores.mean(1) : scores;
  } else {
    mixed = at::scaled_dot_product_attention(queries, keys, values, mask_of_scores);
  }
  return {at::linear(mixed.transpose(1, 2).flatten(2), proj_weight, proj_bias), scores};
}

at::Tensor encoder_layer(const at::Tensor& src, int64_t embed_dim, int64_t heads,
                         const at::Tensor& qkv_weight, const at::Tensor& qkv_bias,
                         const at::Tensor& proj_weight, const at::Tensor& proj_bias, bool use_gelu,
                         bool norm_first, double eps, const at::Tensor& norm_weight_1,
                         const at::Tensor& norm_bias_1, const at::Tensor& norm_weight_2,
                         const at::Tensor& norm_bias_2, const at::Tensor& ffn_weight_1,
                         const at::Tensor& ffn_bias_1, const at::Tensor& ffn_weight_2,
                         const at::Tensor& ffn_bias_2, const OptionalTensor& mask,
                         std::optional<int64_t> mask_type) {
  const auto attended = [&](const at::Tensor& x) {
    return std::get<0>(multi_head_attention(x, x, x, embed_dim, heads, qkv_weight, qkv_bias,
                                            proj_weight, proj_bias, mask, false, false, mask_type));
  };
  const auto fed_forward = [&](const at::Tensor& x) {
    const auto hidden = at::linear(x, ffn_weight_1, ffn_bias_1);
    return at::linear(use_gelu ? at::gelu(hidden) : at::relu(hidden), ffn_weight_2, ffn_bias_2);
  };
  const auto normalized_1 = [&](const at::Tensor& x) {
    return at::layer_norm(x, {embed_dim}, norm_weight_1, norm_bias_1, eps);
  };
  const auto normalized_2 = [&](const at::Tensor& x) {
    return at::layer_norm(x, {embed_dim}, norm_weight_2, norm_bias_2, eps);
  };
  if (norm_first) {
    const auto middle = src + attended(normalized_1(src));
    return middle + fed_forward(normalized_2(middle));
  }
  const auto middle = normalized_1(src + attended(src));
  return normalized_2(middle + fed_forward(middle));
}

// Where tensors are differentiated, on any plane, the same computes them.
template <class Op, auto compute>
void add_layer() {
  Composed<Op, compute>::add();
  add_computed_when<Op, is_differentiated_here, compute>();
}

}  // namespace

void register_attention_layers_rules() {
  add_layer<at::_ops::_native_multi_head_attention, &multi_head_attention>();
  add_layer<at::_ops::_transformer_encoder_layer_fwd, &encoder_layer>();
}

}  // namespace functorch_ext
