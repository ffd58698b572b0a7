// Scaled dot-product attention by the fused kernels for GPUs.
#include "batching/attention.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/derivatives.h"
#include "engine/randomness.h"

namespace functorch_ext {

namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// Output, logsumexp, lengths and largest lengths of sequences, state of the generator.
using Nine = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt,
                        at::Tensor, at::Tensor, at::Tensor>;

// The joined samples are one draw of dropout, different for each.
template <class Signature>
void check_draws(const Operator<Signature>& op, const Level& level, double dropout_p) {
  if (dropout_p > 0) {
    check_randomness_allowed(level, op.handle);
    if (level.randomness == Randomness::Same) {
      raise_same_of_batched(op.handle);
    }
  }
}

Nine parted(const Nine& results, const JoinedAttention& joined) {
  const auto& [output, logsumexp, q_ends, k_ends, max_q, max_k, seed, offset, debug] = results;
  return {joined.part(output),
          joined.part(logsumexp),
          joined.shared(q_ends),
          joined.shared(k_ends),
          max_q,
          max_k,
          joined.shared(seed),
          joined.shared(offset),
          joined.shared(debug)};
}

Nine cuda_flash_rule(const Operator<at::_ops::_scaled_dot_product_flash_attention::schema>& op,
                     Level& level, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, double dropout_p, bool is_causal,
                     bool return_debug_mask, std::optional<double> scale) {
  check_draws(op, level, dropout_p);
  const JoinedAttention joined(query, level);
  return parted(op.call(joined(query), joined(key), joined(value), dropout_p, is_causal,
                        return_debug_mask, scale),
                joined);
}

Three cuda_flash_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const at::Tensor& output, const at::Tensor& logsumexp,
                               const at::Tensor& q_ends, const at::Tensor& k_ends,
                               c10::SymInt max_q, c10::SymInt max_k, double dropout_p,
                               bool is_causal, const at::Tensor& seed, const at::Tensor& offset,
                               std::optional<double> scale) {
  const JoinedAttention joined(query, level);
  const auto below = [&](const at::Tensor& tensor) { return value_of(tensor, level); };
  const auto [grad_query, grad_key, grad_value] =
      at::_scaled_dot_product_flash_attention_backward_symint(
          joined(grad), joined(query), joined(key), joined(value), joined(output),
          joined(logsumexp), below(q_ends), below(k_ends), max_q, max_k, dropout_p, is_causal,
          below(seed), below(offset), scale);
  return {joined.part(grad_query), joined.part(grad_key), joined.part(grad_value)};
}

// `compute_logsumexp` tells whether this plane has a backward pass; those below may have one too.

Four efficient_rule(const Operator<at::_ops::_scaled_dot_product_efficient_attention::schema>& op,
                    Level& level, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value, const OptionalTensor& bias, bool compute_logsumexp,
                    double dropout_p, bool is_causal, std::optional<double> scale) {
  check_draws(op, level, dropout_p);
  const JoinedAttention joined(query, level);
  const auto q = joined(query), k = joined(key), v = joined(value);
  const auto [output, logsumexp, seed, offset] =
      op.call(q, k, v, joined.mask(bias, /*whole=*/true),
              compute_logsumexp || any_differentiated(q, k, v), dropout_p, is_causal, scale);
  return {joined.part(output), joined.part(logsumexp), joined.shared(seed), joined.shared(offset)};
}

Four efficient_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& query,
                             const at::Tensor& key, const at::Tensor& value, const at::Tensor& bias,
                             const at::Tensor& output, const at::Tensor& logsumexp,
                             const at::Tensor& seed, const at::Tensor& offset, double dropout_p,
                             std::array<bool, 4> wanted, bool is_causal,
                             std::optional<double> scale) {
  const JoinedAttention joined(query, level);
  const auto [grad_query, grad_key, grad_value, grad_bias] =
      at::_scaled_dot_product_efficient_attention_backward(
          joined(grad), joined(query), joined(key), joined(value),
          joined.mask(bias, /*whole=*/true).value_or(at::Tensor()), joined(output),
          joined(logsumexp), value_of(seed, level), value_of(offset, level), dropout_p, wanted,
          is_causal, scale);
  // A bias that is broadcast gets the sum.
  auto bias_part = joined.part(grad_bias);
  if (bias_part.defined()) {
    bias_part = bias_part.sum_to_size_symint(bias.sym_sizes());
  }
  return {joined.part(grad_query), joined.part(grad_key), joined.part(grad_value), bias_part};
}

Nine cudnn_rule(const Operator<at::_ops::_scaled_dot_product_cudnn_attention::schema>& op,
                Level& level, const at::Tensor& query, const at::Tensor& key,
                const at::Tensor& value, const OptionalTensor& bias, bool compute_logsumexp,
                double dropout_p, bool is_causal, bool return_debug_mask,
                std::optional<double> scale) {
  check_draws(op, level, dropout_p);
  const JoinedAttention joined(query, level);
  const auto q = joined(query), k = joined(key), v = joined(value);
  return parted(op.call(q, k, v, joined.mask(bias, /*whole=*/true),
                        compute_logsumexp || any_differentiated(q, k, v), dropout_p, is_causal,
                        return_debug_mask, scale),
                joined);
}

Three cudnn_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& query,
                          const at::Tensor& key, const at::Tensor& value, const at::Tensor& output,
                          const at::Tensor& logsumexp, const at::Tensor& seed,
                          const at::Tensor& offset, const at::Tensor& bias,
                          const at::Tensor& q_ends, const at::Tensor& k_ends, c10::SymInt max_q,
                          c10::SymInt max_k, double dropout_p, bool is_causal,
                          std::optional<double> scale) {
  const JoinedAttention joined(query, level);
  const auto below = [&](const at::Tensor& tensor) { return value_of(tensor, level); };
  const auto [grad_query, grad_key, grad_value] =
      at::_scaled_dot_product_cudnn_attention_backward_symint(
          joined(grad), joined(query), joined(key), joined(value), joined(output),
          joined(logsumexp), below(seed), below(offset),
          joined.mask(bias, /*whole=*/true).value_or(at::Tensor()), below(q_ends), below(k_ends),
          max_q, max_k, dropout_p, is_causal, scale);
  return {joined.part(grad_query), joined.part(grad_key), joined.part(grad_value)};
}

}  // namespace

void register_attention_cuda_rules() {
  add<at::_ops::_scaled_dot_product_flash_attention>(cuda_flash_rule);
  add<at::_ops::_scaled_dot_product_flash_attention_backward>(cuda_flash_backward_rule);
  add<at::_ops::_scaled_dot_product_efficient_attention>(efficient_rule);
  add<at::_ops::_scaled_dot_product_efficient_attention_backward>(efficient_backward_rule);
  add<at::_ops::_scaled_dot_product_cudnn_attention>(cudnn_rule);
  add<at::_ops::_scaled_dot_product_cudnn_attention_backward>(cudnn_backward_rule);
}

}  // namespace functorch_ext
