// Batch normalisation: the samples join the channels, for each sample has statistics of its own.
// Layer and group normalisation, whose statistics lie inside one sample, are in layer_norm.cpp.
#include "batching/channels.h"
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/running_statistics.h"
#include "engine/own_memory.h"

namespace functorch_ext {

namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// (C) or (B, C) as (B * C).
OptionalTensor joined(const OptionalTensor& tensor, const Level& level) {
  return tensor && tensor->defined() ? expanded_at_front(*tensor, level).flatten(0, 1)
                                     : OptionalTensor();
}

// output * weight + bias, one number a channel.
at::Tensor affine(const at::Tensor& normalized, const OptionalTensor& weight,
                  const OptionalTensor& bias, int64_t rank, const Level& level) {
  auto result = normalized;
  if (weight && weight->defined()) {
    result = at::mul(result, per_channel(at_front(*weight, level), rank));
  }
  if (bias && bias->defined()) {
    result = at::add(result, per_channel(at_front(*bias, level), rank));
  }
  return wrap(result.to(normalized.scalar_type()), 0, level);
}

// What evaluation normalizes by.
void check_given(const OptionalTensor& running_mean, const OptionalTensor& running_var) {
  TORCH_CHECK(running_mean && running_mean->defined() && running_var && running_var->defined(),
              "batch_norm: evaluation needs running_mean and running_var");
}

// Running statistics joined to (B * C), which training writes to.
class RunningStatistic {
 public:
  RunningStatistic(const OptionalTensor& tensor, const Level& level)
      : joined_(joined(tensor, level)) {
    if (is_batched(tensor, level)) {
      value_ = at_front(*tensor, level);
    }
  }
  const OptionalTensor& get() const {
    return joined_;
  }
  // What was written to a copy goes back into the batched tensor.
  void write_back() const {
    if (value_.defined() && !value_.is_contiguous()) {
      value_.copy_(joined_->reshape_symint(value_.sym_sizes()));
    }
  }

 private:
  OptionalTensor joined_;
  at::Tensor value_;
};

}  // namespace

void check_running_statistics(const OptionalTensor& running_mean, const OptionalTensor& running_var,
                              const Level& level) {
  const auto differs = [&](const OptionalTensor& statistic) {
    return is_batched(statistic, level) ||
           (statistic && statistic->defined() && make_batched(*statistic, level));
  };
  TORCH_CHECK(
      differs(running_mean) && differs(running_var),
      "functorch_ext.vmap: batch_norm in training would write running statistics that differ "
      "between samples into running_mean and running_var, which all samples share. Either map "
      "over the running statistics too (stack_module_state does), or replace them: "
      "functorch_ext.replace_all_batch_norm_modules_(model) makes batch normalisation use the "
      "statistics of the batch alone; or call model.eval().");
}

namespace {

// PyTorch's kernels take other shapes where their memory is contiguous.
void check_per_channel(const char* name, const OptionalTensor& tensor) {
  TORCH_CHECK(!tensor || !tensor->defined() || tensor->dim() == 1, "batch_norm: ", name,
              " must have one number per channel, in one dimension, but got a shape of ",
              tensor ? tensor->dim() : 0, " dimensions");
}

Three batch_norm_rule(Level& level, const at::Tensor& input, const OptionalTensor& weight,
                      const OptionalTensor& bias, const OptionalTensor& running_mean,
                      const OptionalTensor& running_var, bool training, double momentum,
                      double eps) {
  check_per_channel("weight", weight);
  check_per_channel("bias", bias);
  const bool batched_affine = is_batched(weight, level) || is_batched(bias, level);
  const bool batched_statistics = is_batched(running_mean, level) || is_batched(running_var, level);
  const bool updates = training && running_mean && running_mean->defined();
  if (!training) {
    check_given(running_mean, running_var);
  }
  if (!is_batched_at(input, level) && !batched_statistics) {
    const auto [output, mean, invstd] =
        at::native_batch_norm(value_of(input, level), {}, {}, optional_value(running_mean, level),
                              optional_value(running_var, level), training, momentum, eps);
    return {affine(output, weight, bias, input.dim(), level), wrap_if(mean, false, level),
            wrap_if(invstd, false, level)};
  }
  if (!training && !batched_affine && !batched_statistics) {
    const JoinedWithN with_n(input, level);
    const auto [output, mean, invstd] =
        at::native_batch_norm(with_n.value(), optional_value(weight, level),
                              optional_value(bias, level), optional_value(running_mean, level),
                              optional_value(running_var, level), training, momentum, eps);
    return {with_n.part(output), wrap_if(mean, false, level), wrap_if(invstd, false, level)};
  }
  if (updates) {
    check_running_statistics(running_mean, running_var, level);
  }
  if (has_no_samples(level)) {
    const auto channels = input.sym_sizes().slice(1, 1);
    const auto statistic = of_no_samples(input, channels, level);
    return {of_no_samples(input, input.sym_sizes(), level), statistic, statistic};
  }
  const RunningStatistic means(running_mean, level);
  const RunningStatistic variances(running_var, level);
  const auto [output, mean, invstd] = at::native_batch_norm(
      join_channels(expanded_at_front(input, level), 1), joined(weight, level), joined(bias, level),
      means.get(), variances.get(), training, momentum, eps);
  if (!training) {
    return {part_channels(output, 1, level), wrap_if(mean, false, level),
            wrap_if(invstd, false, level)};
  }
  means.write_back();
  variances.write_back();
  return {part_channels(output, 1, level), part_channels(mean, 0, level),
          part_channels(invstd, 0, level)};
}

// The other forms that batch normalisation has.
Three batch_norm_legit_rule(Level& level, const at::Tensor& input, const OptionalTensor& weight,
                            const OptionalTensor& bias, at::Tensor& running_mean,
                            at::Tensor& running_var, bool training, double momentum, double eps) {
  return batch_norm_rule(level, input, weight, bias, running_mean, running_var, training, momentum,
                         eps);
}

Three batch_norm_no_stats_rule(Level& level, const at::Tensor& input, const OptionalTensor& weight,
                               const OptionalTensor& bias, bool training, double momentum,
                               double eps) {
  return batch_norm_rule(level, input, weight, bias, {}, {}, training, momentum, eps);
}

Three batch_norm_no_training_rule(Level& level, const at::Tensor& input,
                                  const OptionalTensor& weight, const OptionalTensor& bias,
                                  const at::Tensor& running_mean, const at::Tensor& running_var,
                                  double momentum, double eps) {
  return batch_norm_rule(level, input, weight, bias, running_mean, running_var, false, momentum,
                         eps);
}

at::Tensor nothing_reserved(const at::Tensor& input, const Level& level) {
  return wrap(value_of(input, level).new_empty({0}, at::kByte), no_bdim, level);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> batch_norm_with_update_rule(
    Level& level, const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    at::Tensor& running_mean, at::Tensor& running_var, double momentum, double eps) {
  auto [output, mean, invstd] =
      batch_norm_rule(level, input, weight, bias, running_mean, running_var, true, momentum, eps);
  return {output, mean, invstd, nothing_reserved(input, level)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> batch_norm_no_update_rule(
    Level& level, const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    const OptionalTensor& running_mean, const OptionalTensor& running_var, double momentum,
    double eps) {
  auto [output, mean, invstd] =
      batch_norm_rule(level, input, weight, bias, running_mean, running_var, false, momentum, eps);
  return {output, mean, invstd, nothing_reserved(input, level)};
}

// Out of place, the running statistics that training has changed are results.
std::pair<at::Tensor, at::Tensor> copies_to_update(const at::Tensor& running_mean,
                                                   const at::Tensor& running_var,
                                                   const Level& level) {
  const auto copied = [&](const at::Tensor& statistic) {
    return wrap(expanded_at_front(statistic, level).clone(at::MemoryFormat::Contiguous), 0, level);
  };
  return {copied(running_mean), copied(running_var)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> batch_norm_functional_rule(
    Level& level, const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    const at::Tensor& running_mean, const at::Tensor& running_var, bool training, double momentum,
    double eps) {
  const auto [new_mean, new_var] = copies_to_update(running_mean, running_var, level);
  const auto [output, mean, invstd] =
      batch_norm_rule(level, input, weight, bias, new_mean, new_var, training, momentum, eps);
  return {output, mean, invstd, new_mean, new_var};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
batch_norm_with_update_functional_rule(Level& level, const at::Tensor& input,
                                       const OptionalTensor& weight, const OptionalTensor& bias,
                                       const at::Tensor& running_mean,
                                       const at::Tensor& running_var, double momentum, double eps) {
  const auto [new_mean, new_var] = copies_to_update(running_mean, running_var, level);
  const auto [output, mean, invstd] =
      batch_norm_rule(level, input, weight, bias, new_mean, new_var, true, momentum, eps);
  return {output, mean, invstd, nothing_reserved(input, level), new_mean, new_var};
}

// The statistics alone: (mean, variance); the running ones are updated in place.
std::tuple<at::Tensor, at::Tensor> batch_norm_update_stats_rule(Level& level,
                                                                const at::Tensor& input,
                                                                const OptionalTensor& running_mean,
                                                                const OptionalTensor& running_var,
                                                                double momentum) {
  check_running_statistics(running_mean, running_var, level);
  const RunningStatistic means(running_mean, level);
  const RunningStatistic variances(running_var, level);
  const auto [mean, var] = at::batch_norm_update_stats(
      join_channels(expanded_at_front(input, level), 1), means.get(), variances.get(), momentum);
  means.write_back();
  variances.write_back();
  return {part_channels(mean, 0, level), part_channels(var, 0, level)};
}

// With fixed statistics a channel is scaled and shifted, so no tensor has to be expanded.
Three batch_norm_backward_of_evaluation(Level& level, const at::Tensor& grad_output,
                                        const at::Tensor& input, const OptionalTensor& weight,
                                        const OptionalTensor& running_mean,
                                        const OptionalTensor& running_var, double eps,
                                        std::array<bool, 3> output_mask) {
  check_given(running_mean, running_var);
  const auto rank = input.dim();
  const bool batched_grad = is_batched_at(grad_output, level);
  const bool batched_var = is_batched(running_var, level);
  const auto grad = at_front(grad_output, level);
  const auto invstd = at::rsqrt(at::add(at_front(*running_var, level), eps));
  const auto result = [&](const at::Tensor& value, bool batched, const at::Tensor& like) {
    return wrap(value.to(like.scalar_type()), batched ? 0 : no_bdim, level);
  };
  Three gradients;
  const bool has_weight = weight && weight->defined();
  if (output_mask[0]) {
    const auto scale = has_weight ? at::mul(invstd, at_front(*weight, level)) : invstd;
    std::get<0>(gradients) =
        result(at::mul(grad, per_channel(scale, rank)),
               batched_grad || batched_var || is_batched(weight, level), input);
  }
  if (output_mask[1]) {
    const auto centred =
        at::sub(at_front(input, level), per_channel(at_front(*running_mean, level), rank));
    const auto sum = sum_per_channel(at::mul(grad, centred), rank);
    std::get<1>(gradients) = result(at::mul(sum, invstd),
                                    batched_grad || batched_var || is_batched_at(input, level) ||
                                        is_batched(running_mean, level),
                                    has_weight ? *weight : *running_var);
  }
  if (output_mask[2]) {
    std::get<2>(gradients) =
        result(sum_per_channel(grad, rank), batched_grad, has_weight ? *weight : *running_var);
  }
  return gradients;
}

Three batch_norm_backward_rule(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                               const OptionalTensor& weight, const OptionalTensor& running_mean,
                               const OptionalTensor& running_var, const OptionalTensor& save_mean,
                               const OptionalTensor& save_invstd, bool train, double eps,
                               std::array<bool, 3> output_mask) {
  if (!train) {
    return batch_norm_backward_of_evaluation(level, grad_output, input, weight, running_mean,
                                             running_var, eps, output_mask);
  }
  const auto part = [&](bool wanted, const at::Tensor& gradient, int64_t channel_dim) {
    if (!wanted || !gradient.defined()) {
      return at::Tensor();
    }
    return part_channels(gradient, channel_dim, level);
  };
  if (has_no_samples(level)) {
    const auto gradient = [&](bool wanted, c10::SymIntArrayRef sizes) {
      return wanted ? of_no_samples(input, sizes, level) : at::Tensor();
    };
    const auto channels = input.sym_sizes().slice(1, 1);
    return {gradient(output_mask[0], input.sym_sizes()), gradient(output_mask[1], channels),
            gradient(output_mask[2], channels)};
  }
  const auto gradients = at::native_batch_norm_backward(
      join_channels(expanded_at_front(grad_output, level), 1),
      join_channels(expanded_at_front(input, level), 1), joined(weight, level), {}, {},
      joined(save_mean, level), joined(save_invstd, level), train, eps, output_mask);
  return {part(output_mask[0], std::get<0>(gradients), 1),
          part(output_mask[1], std::get<1>(gradients), 0),
          part(output_mask[2], std::get<2>(gradients), 0)};
}

Three batch_norm_backward_reserved_rule(
    Level& level, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight,
    const OptionalTensor& running_mean, const OptionalTensor& running_var,
    const OptionalTensor& save_mean, const OptionalTensor& save_invstd, bool update, double eps,
    std::array<bool, 3> output_mask, const at::Tensor& reserve) {
  return batch_norm_backward_rule(level, grad_output, input, weight, running_mean, running_var,
                                  save_mean, save_invstd, update, eps, output_mask);
}

// The names that batch normalisation has on GPUs.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> batch_norm_cudnn_rule(
    Level& level, const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias,
    const OptionalTensor& running_mean, const OptionalTensor& running_var, bool training,
    double momentum, double eps) {
  auto [output, mean, invstd] = batch_norm_rule(level, input, weight, bias, running_mean,
                                                running_var, training, momentum, eps);
  return {output, mean, invstd, nothing_reserved(input, level)};
}

Three batch_norm_cudnn_backward_rule(Level& level, const at::Tensor& input,
                                     const at::Tensor& grad_output, const at::Tensor& weight,
                                     const OptionalTensor& running_mean,
                                     const OptionalTensor& running_var,
                                     const OptionalTensor& save_mean,
                                     const OptionalTensor& save_invstd, double eps,
                                     const at::Tensor& reserve) {
  return batch_norm_backward_rule(level, grad_output, input, weight, running_mean, running_var,
                                  save_mean, save_invstd, true, eps, {true, true, true});
}

Three batch_norm_miopen_rule(Level& level, const at::Tensor& input, const at::Tensor& weight,
                             const OptionalTensor& bias, const OptionalTensor& running_mean,
                             const OptionalTensor& running_var, bool training, double momentum,
                             double eps) {
  return batch_norm_rule(level, input, weight, bias, running_mean, running_var, training, momentum,
                         eps);
}

Three batch_norm_miopen_backward_rule(Level& level, const at::Tensor& input,
                                      const at::Tensor& grad_output, const at::Tensor& weight,
                                      const OptionalTensor& running_mean,
                                      const OptionalTensor& running_var,
                                      const OptionalTensor& save_mean,
                                      const OptionalTensor& save_invstd, double eps) {
  return batch_norm_backward_rule(level, grad_output, input, weight, running_mean, running_var,
                                  save_mean, save_invstd, true, eps, {true, true, true});
}

}  // namespace

void register_normalization_rules() {
  add<at::_ops::native_batch_norm>(batch_norm_rule);
  add<at::_ops::_native_batch_norm_legit>(batch_norm_legit_rule);
  add<at::_ops::_native_batch_norm_legit_no_stats>(batch_norm_no_stats_rule);
  add<at::_ops::_native_batch_norm_legit_no_training>(batch_norm_no_training_rule);
  add<at::_ops::_batch_norm_with_update>(batch_norm_with_update_rule);
  add<at::_ops::_batch_norm_no_update>(batch_norm_no_update_rule);
  add<at::_ops::_native_batch_norm_legit_functional>(batch_norm_functional_rule);
  add<at::_ops::_batch_norm_with_update_functional>(batch_norm_with_update_functional_rule);
  add<at::_ops::batch_norm_update_stats>(batch_norm_update_stats_rule);
  add<at::_ops::native_batch_norm_backward>(batch_norm_backward_rule);
  add<at::_ops::batch_norm_backward>(batch_norm_backward_reserved_rule);
  add<at::_ops::cudnn_batch_norm>(batch_norm_cudnn_rule);
  add<at::_ops::cudnn_batch_norm_backward>(batch_norm_cudnn_backward_rule);
  add<at::_ops::miopen_batch_norm>(batch_norm_miopen_rule);
  add<at::_ops::miopen_batch_norm_backward>(batch_norm_miopen_backward_rule);

  // Made of the above.
  add_decomposition<at::_ops::batch_norm>();
  add_decomposition<at::_ops::_batch_norm_impl_index>();
  add_decomposition<at::_ops::instance_norm>();
}

}  // namespace functorch_ext
