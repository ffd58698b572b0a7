// The fused kernels of scaled dot-product attention have no forward mode and no second derivative.
// Where those are asked for, products of matrices take their place.
#include "batching/attention.h"

#include "batching/operators.h"
#include "derivatives/given.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// What attention computes, besides the tensors: the weights of a query are the softmax, over the
// keys, of its products with them, scaled, plus the mask.
struct AttentionSettings {
  bool is_causal;
  std::optional<double> scale;
};

double scale_of(const at::Tensor& query, const AttentionSettings& settings) {
  if (settings.scale) {
    return *settings.scale;
  }
  const auto features = query.sym_size(-1).guard_int(__FILE__, __LINE__);
  return 1 / std::sqrt(static_cast<double>(features));
}

// Keys or values for each head of the query; several heads may share one.
at::Tensor for_heads_of(const at::Tensor& query, const at::Tensor& tensor) {
  if (query.dim() < 3 || query.sym_size(-3) == tensor.sym_size(-3)) {
    return tensor;
  }
  TORCH_CHECK(tensor.sym_size(-3) != 0 && query.sym_size(-3) % tensor.sym_size(-3) == 0,
              "attention: ", query.sym_size(-3), " heads of the query can't share ",
              tensor.sym_size(-3), " of the keys or values");
  return tensor.repeat_interleave_symint(query.sym_size(-3) / tensor.sym_size(-3), -3);
}

// The reverse: what came of them for each head of the query, summed over the heads that share one.
at::Tensor sum_for_heads_of(const at::Tensor& like, const at::Tensor& gradient) {
  if (gradient.dim() < 3 || gradient.sym_size(-3) == like.sym_size(-3)) {
    return gradient;
  }
  const auto shared = gradient.sym_size(-3) / like.sym_size(-3);
  return gradient.unflatten_symint(-3, {like.sym_size(-3), shared}).sum(-3);
}

at::Tensor scores_of(const at::Tensor& query, const at::Tensor& key, const OptionalTensor& mask,
                     const AttentionSettings& settings) {
  auto scores = at::matmul(query * scale_of(query, settings), key.transpose(-2, -1));
  if (settings.is_causal) {
    const auto seen =
        at::ones_symint({query.sym_size(-2), key.sym_size(-2)}, scores.options().dtype(at::kBool))
            .tril();
    scores = scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
  }
  if (is_given(mask)) {
    scores = scores + *additive_mask(mask, scores.scalar_type());
  }
  return scores;
}

// (output, logsumexp). Heads of `key` and `value` may be fewer than those of `query`, which share
// them then.
Two attention_of_products(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          const OptionalTensor& mask, const AttentionSettings& settings) {
  const auto scores = scores_of(query, for_heads_of(query, key), mask, settings);
  const auto weights = at::_safe_softmax(scores, -1);
  // Not differentiable, as that of the fused kernel.
  const auto constant = std::get<0>(at::_unpack_dual(scores, /*level=*/0)).detach();
  return {at::matmul(weights, for_heads_of(query, value)), at::logsumexp(constant, {-1})};
}

// The gradients of query, key and value.
Three attention_gradients(const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key,
                          const at::Tensor& value, const OptionalTensor& mask,
                          const AttentionSettings& settings) {
  const auto keys = for_heads_of(query, key);
  const auto weights = at::_safe_softmax(scores_of(query, keys, mask, settings), -1);
  const auto grad_weights =
      weights * at::matmul(grad, for_heads_of(query, value).transpose(-2, -1));
  const auto grad_scores =
      (grad_weights - weights * grad_weights.sum(-1, /*keepdim=*/true)) * scale_of(query, settings);
  return {at::matmul(grad_scores, keys),
          sum_for_heads_of(key, at::matmul(grad_scores.transpose(-2, -1), query)),
          sum_for_heads_of(value, at::matmul(weights.transpose(-2, -1), grad))};
}

Two flash_with_tangents(c10::DispatchKeySet keys, const at::Tensor& query, const at::Tensor& key,
                        const at::Tensor& value, double dropout_p, bool is_causal,
                        const OptionalTensor& mask, std::optional<double> scale) {
  if (any_tangent(query, key, value, mask)) {
    return attention_of_products(query, key, value, mask, {is_causal, scale});
  }
  return at::_ops::_scaled_dot_product_flash_attention_for_cpu::redispatch(
      below_derivatives(keys), query, key, value, dropout_p, is_causal, mask, scale);
}

Three flash_backward_recorded(c10::DispatchKeySet keys, const at::Tensor& grad,
                              const at::Tensor& query, const at::Tensor& key,
                              const at::Tensor& value, const at::Tensor& output,
                              const at::Tensor& logsumexp, double dropout_p, bool is_causal,
                              const OptionalTensor& mask, std::optional<double> scale) {
  if (grad.defined() && any_differentiated(grad, query, key, value, mask)) {
    return attention_gradients(grad, query, key, value, mask, {is_causal, scale});
  }
  return at::_ops::_scaled_dot_product_flash_attention_for_cpu_backward::redispatch(
      below_derivatives(keys), grad, query, key, value, output, logsumexp, dropout_p, is_causal,
      mask, scale);
}

// Kernels for GPUs: the same, unless dropout was drawn.

Three cuda_flash_backward_recorded(c10::DispatchKeySet keys, const at::Tensor& grad,
                                   const at::Tensor& query, const at::Tensor& key,
                                   const at::Tensor& value, const at::Tensor& output,
                                   const at::Tensor& logsumexp, const at::Tensor& q_ends,
                                   const at::Tensor& k_ends, c10::SymInt max_q, c10::SymInt max_k,
                                   double dropout_p, bool is_causal, const at::Tensor& seed,
                                   const at::Tensor& offset, std::optional<double> scale) {
  if (dropout_p == 0 && any_differentiated(grad, query, key, value)) {
    return attention_gradients(grad, query, key, value, {}, {is_causal, scale});
  }
  return at::_ops::_scaled_dot_product_flash_attention_backward::redispatch(
      below_derivatives(keys), grad, query, key, value, output, logsumexp, q_ends, k_ends, max_q,
      max_k, dropout_p, is_causal, seed, offset, scale);
}

Four efficient_backward_recorded(c10::DispatchKeySet keys, const at::Tensor& grad,
                                 const at::Tensor& query, const at::Tensor& key,
                                 const at::Tensor& value, const at::Tensor& bias,
                                 const at::Tensor& output, const at::Tensor& logsumexp,
                                 const at::Tensor& seed, const at::Tensor& offset, double dropout_p,
                                 std::array<bool, 4> wanted, bool is_causal,
                                 std::optional<double> scale) {
  if (dropout_p == 0 && !wanted[3] && any_differentiated(grad, query, key, value, bias)) {
    const auto [grad_query, grad_key, grad_value] =
        attention_gradients(grad, query, key, value, bias, {is_causal, scale});
    return {grad_query, grad_key, grad_value, at::Tensor()};
  }
  return at::_ops::_scaled_dot_product_efficient_attention_backward::redispatch(
      below_derivatives(keys), grad, query, key, value, bias, output, logsumexp, seed, offset,
      dropout_p, wanted, is_causal, scale);
}

}  // namespace

void register_attention_derivatives() {
  add_derivative_kernel<at::_ops::_scaled_dot_product_flash_attention_for_cpu>(flash_with_tangents);
  add_derivative_kernel<at::_ops::_scaled_dot_product_flash_attention_for_cpu_backward>(
      flash_backward_recorded);
  add_derivative_kernel<at::_ops::_scaled_dot_product_flash_attention_backward>(
      cuda_flash_backward_recorded);
  add_derivative_kernel<at::_ops::_scaled_dot_product_efficient_attention_backward>(
      efficient_backward_recorded);
}

}  // namespace functorch_ext
