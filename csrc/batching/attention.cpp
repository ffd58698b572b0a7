// Scaled dot-product attention: what chooses a kernel, and the fused one for CPUs.
#include "batching/attention.h"

#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/derivatives.h"

namespace functorch_ext {

OptionalTensor additive_mask(const OptionalTensor& mask, at::ScalarType dtype) {
  if (!mask || !mask->defined() || mask->scalar_type() != at::kBool) {
    return mask;
  }
  return at::zeros_like(*mask, mask->options().dtype(dtype))
      .masked_fill(mask->logical_not(), -std::numeric_limits<double>::infinity());
}

OptionalTensor JoinedAttention::mask(const OptionalTensor& mask, bool whole) const {
  if (!mask || !mask->defined()) {
    return {};
  }
  const bool batched = is_batched_at(*mask, level_);
  auto value = at_front(*mask, level_);
  const auto front = batched ? 1 : 0;
  while (value.dim() < 4 + front) {
    value = value.unsqueeze(front);
  }
  if (!batched && !whole && value.sym_size(0) == 1) {
    return value;
  }
  auto sizes = value.sym_sizes().vec();
  if (!batched) {
    sizes.insert(sizes.begin(), level_.batch_size);
  }
  sizes[1] = n_;
  return merge_into(value.expand_symint(sizes), 0);
}

bool is_mask_differentiated(const OptionalTensor& mask) {
  if (!mask || !mask->defined()) {
    return false;
  }
  for (at::Tensor each = *mask;; each = wrapper_of(each)->value()) {
    if (each.requires_grad() || any_tangent(each)) {
      return true;
    }
    if (!is_wrapper(each)) {
      return false;
    }
  }
}

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

at::Tensor with_rank_4(const at::Tensor& tensor) {
  if (tensor.dim() > 4) {
    return tensor.flatten(0, -4);
  }
  auto result = tensor;
  while (result.dim() < 4) {
    result = result.unsqueeze(0);
  }
  return result;
}

// Fused kernels want rank 4; one sample has any other rank as often. They don't differentiate by
// the mask, nor draw the dropout that is asked for.
std::optional<at::Tensor> attention(Level&, const at::Tensor& query, const at::Tensor& key,
                                    const at::Tensor& value, const OptionalTensor& mask,
                                    double dropout_p, bool is_causal, std::optional<double> scale,
                                    bool enable_gqa) {
  TORCH_CHECK(dropout_p >= 0 && dropout_p <= 1,
              "scaled_dot_product_attention: expected dropout_p between 0 and 1, but got ",
              dropout_p);
  const auto rank = query.dim();
  const bool same_leading =
      rank >= 2 && key.dim() == rank && value.dim() == rank &&
      query.sym_sizes().slice(0, rank - 2) == key.sym_sizes().slice(0, rank - 2) &&
      key.sym_sizes().slice(0, rank - 2) == value.sym_sizes().slice(0, rank - 2);
  const bool has_mask = mask && mask->defined();
  // The fused kernel takes both, but PyTorch uses it for rank 4 alone.
  TORCH_CHECK(rank == 4 || !(has_mask && is_causal),
              "scaled_dot_product_attention: Explicit attn_mask should not be set when "
              "is_causal=True");
  const bool fits = same_leading && !(has_mask && (rank > 4 || mask->dim() < 2));
  if (dropout_p > 0 || is_mask_differentiated(mask) || any_tangent(query, key, value)) {
    return std::get<0>(at::_scaled_dot_product_attention_math(
        query, key, value, additive_mask(mask, query.scalar_type()), dropout_p, is_causal, {},
        scale, enable_gqa));
  }
  if (!fits || (rank == 4 && !(has_mask && mask->dim() == 3))) {
    return std::nullopt;
  }
  const auto output = at::scaled_dot_product_attention(
      with_rank_4(query), with_rank_4(key), with_rank_4(value),
      has_mask && mask->dim() != 2 ? OptionalTensor(with_rank_4(*mask)) : mask, dropout_p,
      is_causal, scale, enable_gqa);
  auto sizes = query.sym_sizes().vec();
  sizes.back() = value.sym_size(-1);
  return output.view_symint(sizes);
}

Two flash_rule(Level& level, const at::Tensor& query, const at::Tensor& key,
               const at::Tensor& value, double dropout_p, bool is_causal,
               const OptionalTensor& mask, std::optional<double> scale) {
  const bool has_mask = mask && mask->defined();
  if (!is_batched_at(key, level) && !is_batched_at(value, level) && !has_mask && !is_causal &&
      is_batched_at(query, level)) {
    // Shared keys and values: the samples are more queries.
    const auto [output, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
        merge_into(at_front(query, level), 2), value_of(key, level), value_of(value, level),
        dropout_p, is_causal, {}, scale);
    const auto part = [&](const at::Tensor& result) {
      return wrap(split_from(result, 2, level, query.sym_size(2)), 0, level);
    };
    return {part(output), part(logsumexp)};
  }
  const JoinedAttention joined(query, level);
  const auto [output, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
      joined(query), joined(key), joined(value), dropout_p, is_causal, joined.mask(mask), scale);
  return {joined.part(output), joined.part(logsumexp)};
}

Three flash_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& query,
                          const at::Tensor& key, const at::Tensor& value, const at::Tensor& output,
                          const at::Tensor& logsumexp, double dropout_p, bool is_causal,
                          const OptionalTensor& mask, std::optional<double> scale) {
  const JoinedAttention joined(query, level);
  const auto [grad_query, grad_key, grad_value] =
      at::_scaled_dot_product_flash_attention_for_cpu_backward(
          joined(grad), joined(query), joined(key), joined(value), joined(output),
          joined(logsumexp), dropout_p, is_causal, joined.mask(mask), scale);
  return {joined.part(grad_query), joined.part(grad_key), joined.part(grad_value)};
}

}  // namespace

void register_attention_rules() {
  add_decomposition<at::_ops::scaled_dot_product_attention>(attention);
  add<at::_ops::_scaled_dot_product_flash_attention_for_cpu>(flash_rule);
  add<at::_ops::_scaled_dot_product_flash_attention_for_cpu_backward>(flash_backward_rule);
}

}  // namespace functorch_ext
