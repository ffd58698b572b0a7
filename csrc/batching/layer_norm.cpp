// Layer and group normalisation: the statistics lie inside one sample, so the samples are just more
// of N. Weights that differ between samples scale the normalised result afterwards.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/addcmul.h>

#include "autodiff/plane.h"
#include "batching/channels.h"
#include "batching/families.h"
#include "batching/layer_norm_gradients.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// The normalised value, which nobody else holds, with weight and bias, which line up with it.
at::Tensor scale_and_shift(const at::Tensor& normalized, const at::Tensor& weight,
                           const at::Tensor& bias, const Level& level) {
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.defined() && is_readable(tensor) &&
           tensor.scalar_type() == normalized.scalar_type() &&
           at::is_expandable_to(tensor.sizes(), normalized.sizes());
  };
  if (is_readable(normalized) && fits(weight) && fits(bias)) {
    auto result = normalized;
    return wrap(at::addcmul_out(result, bias, normalized, weight), 0, level);
  }
  auto result = weight.defined() ? at::mul(normalized, weight) : normalized;
  if (bias.defined()) {
    result = at::add(result, bias);
  }
  return wrap(result.to(normalized.scalar_type()), 0, level);
}

at::Tensor aligned(const OptionalTensor& tensor, int64_t rank, const Level& level) {
  return tensor && tensor->defined() ? functorch_ext::aligned(*tensor, rank, level) : at::Tensor();
}

Three layer_norm_rule(Level& level, const at::Tensor& input, c10::SymIntArrayRef normalized_shape,
                      const OptionalTensor& weight, const OptionalTensor& bias, double eps) {
  const bool batched = is_batched_at(input, level);
  const bool batched_affine = is_batched(weight, level) || is_batched(bias, level);
  auto [output, mean, rstd] = at::native_layer_norm_symint(
      at_front(input, level), normalized_shape,
      batched_affine ? OptionalTensor() : optional_value(weight, level),
      batched_affine ? OptionalTensor() : optional_value(bias, level), eps);
  if (batched_affine) {
    output = scale_and_shift(output, aligned(weight, input.dim(), level),
                             aligned(bias, input.dim(), level), level);
  } else {
    output = wrap_if(output, batched, level);
  }
  return {output, wrap_if(mean, batched, level), wrap_if(rstd, batched, level)};
}

// A sum as the gradient of a weight, which may be absent.
at::Tensor for_weight(const at::Tensor& sum, const OptionalTensor& weight) {
  return weight && weight->defined() ? sum.to(weight->scalar_type()) : sum;
}

// Sums a value over the dimensions in front of the last `kept`, samples excepted.
at::Tensor sum_leading(const at::Tensor& value, int64_t kept, bool batched) {
  std::vector<int64_t> dims;
  for (int64_t dim = batched ? 1 : 0; dim < value.dim() - kept; ++dim) {
    dims.push_back(dim);
  }
  return dims.empty() ? value : value.sum(dims);
}

// grad * (input - mean) * rstd, in one piece of memory where nothing has to be saved.
at::Tensor times_normalized(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& mean,
                            const at::Tensor& rstd) {
  auto centred = at::sub(input, mean);
  const bool fits = grad.sym_sizes() == centred.sym_sizes() &&
                    grad.scalar_type() == centred.scalar_type() &&
                    rstd.scalar_type() == centred.scalar_type() && is_plain(grad) &&
                    is_plain(centred) && is_plain(rstd);
  return fits ? centred.mul_(rstd).mul_(grad) : at::mul(grad, at::mul(centred, rstd));
}

// The same as a function of the input alone, for autograd around, which takes mean and rstd for
// constants: PyTorch's layer norm has no derivatives of them. They tell the epsilon.
at::Tensor times_normalized_again(const at::Tensor& grad, const at::Tensor& input,
                                  const at::Tensor& mean, const at::Tensor& rstd,
                                  int64_t normalized_rank) {
  std::vector<int64_t> over;
  for (auto dim = -normalized_rank; dim < 0; ++dim) {
    over.push_back(dim);
  }
  const auto variance = [&](const at::Tensor& centred) {
    return at::mul(centred, centred).mean(over, /*keepdim=*/true);
  };
  const auto constant = at::sub(input.detach(), mean.detach());
  const auto epsilon = at::sub(rstd.detach().pow(-2), variance(constant));
  const auto centred = at::sub(input, input.mean(over, /*keepdim=*/true));
  return at::mul(grad, at::mul(centred, at::add(variance(centred), epsilon).rsqrt()));
}

// In one pass, where that may read memory; undefined where not.
Three gradients_in_one_pass(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                            c10::SymIntArrayRef normalized_shape, const at::Tensor& mean,
                            const at::Tensor& rstd, const OptionalTensor& weight,
                            std::array<bool, 3> output_mask) {
  const bool has_weight = weight && weight->defined();
  const auto type = input.scalar_type();
  const auto fits = [&](const at::Tensor& tensor) {
    return tensor.scalar_type() == type && is_readable(value_of(tensor, level));
  };
  const auto kept = input.dim() - static_cast<int64_t>(normalized_shape.size());
  if ((type != at::kFloat && type != at::kDouble) || !is_batched_at(grad_output, level) ||
      !is_batched_at(input, level) || !is_batched_at(mean, level) || !is_batched_at(rstd, level) ||
      !fits(grad_output) || !fits(input) || !fits(mean) || !fits(rstd) || kept < 0 ||
      input.sym_sizes().slice(kept) != normalized_shape ||
      (has_weight && (!fits(*weight) || weight->sym_sizes() != normalized_shape))) {
    return {};
  }
  const auto size = c10::multiply_integers(input.sizes().slice(kept));
  const auto rows = input.numel() / size;
  if (mean.numel() != rows || rstd.numel() != rows) {
    return {};
  }
  auto [input_gradient, weight_gradient, bias_gradient] =
      layer_norm_gradients(at_front(grad_output, level), at_front(input, level),
                           at_front(mean, level), at_front(rstd, level),
                           !has_weight                 ? at::Tensor()
                           : is_batched(weight, level) ? at_front(*weight, level).flatten(1)
                                                       : value_of(*weight, level).flatten(),
                           size, output_mask[0]);
  const auto of_size = [&](const at::Tensor& gradient, bool wanted) {
    return wanted ? wrap(gradient.view_symint(physical_sizes(normalized_shape, level)), 0, level)
                  : at::Tensor();
  };
  return {wrap_if(input_gradient, true, level), of_size(weight_gradient, output_mask[1]),
          of_size(bias_gradient, output_mask[2])};
}

Three layer_norm_backward_rule(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                               c10::SymIntArrayRef normalized_shape, const at::Tensor& mean,
                               const at::Tensor& rstd, const OptionalTensor& weight,
                               const OptionalTensor& bias, std::array<bool, 3> output_mask) {
  const auto rank = input.dim();
  const auto normalized_rank = static_cast<int64_t>(normalized_shape.size());
  TORCH_CHECK(rank >= normalized_rank && grad_output.sym_sizes() == input.sym_sizes(),
              "layer_norm: expected an input and a gradient of shape [*, ", normalized_shape,
              "], but got ", input.sym_sizes(), " and ", grad_output.sym_sizes());
  Three gradients;
  if (output_mask[1] || output_mask[2]) {
    gradients = gradients_in_one_pass(level, grad_output, input, normalized_shape, mean, rstd,
                                      weight, output_mask);
    if (std::get<1>(gradients).defined() || std::get<2>(gradients).defined()) {
      return gradients;
    }
  }
  const bool batched_grad = is_batched_at(grad_output, level);
  const bool batched_input = is_batched_at(input, level);
  const auto grad = at_front(grad_output, level);
  if (output_mask[0]) {
    // A weight that differs between samples is multiplied into the output's gradient.
    const bool scales = is_batched(weight, level);
    const auto scaled =
        scales ? wrap(at::mul(grad, aligned(weight, rank, level)), 0, level) : grad_output;
    const bool batched = scales || batched_grad || batched_input;
    const auto value = [&](const at::Tensor& tensor) {
      return batched ? expanded_at_front(tensor, level) : value_of(tensor, level);
    };
    const auto gradient = at::native_layer_norm_backward_symint(
        value(scaled), value(input), normalized_shape, value(mean).contiguous(),
        value(rstd).contiguous(), scales ? OptionalTensor() : optional_value(weight, level), {},
        {true, false, false});
    std::get<0>(gradients) = wrap_if(std::get<0>(gradient), batched, level);
  }
  if (output_mask[1]) {
    const bool batched = batched_grad || batched_input;
    const auto value = at_front(input, level);
    const auto front_mean = at_front(mean, level), front_rstd = at_front(rstd, level);
    const auto product = is_followed(value) ? times_normalized_again(grad, value, front_mean,
                                                                     front_rstd, normalized_rank)
                                            : times_normalized(grad, value, front_mean, front_rstd);
    const auto sum = sum_leading(product, normalized_rank, batched);
    std::get<1>(gradients) = wrap_if(for_weight(sum, weight), batched, level);
  }
  if (output_mask[2]) {
    const auto sum = sum_leading(grad, normalized_rank, batched_grad);
    std::get<2>(gradients) = wrap_if(for_weight(sum, bias), batched_grad, level);
  }
  return gradients;
}

Three group_norm_rule(Level& level, const at::Tensor& input, const OptionalTensor& weight,
                      const OptionalTensor& bias, c10::SymInt n, c10::SymInt channels,
                      c10::SymInt channel_size, int64_t group, double eps) {
  if (!is_batched_at(input, level)) {
    const auto [output, mean, rstd] = at::native_group_norm_symint(
        value_of(input, level), {}, {}, n, channels, channel_size, group, eps);
    const auto front = [&](const OptionalTensor& tensor) {
      return tensor && tensor->defined() ? per_channel(at_front(*tensor, level), input.dim())
                                         : at::Tensor();
    };
    return {scale_and_shift(output, front(weight), front(bias), level), wrap(mean, no_bdim, level),
            wrap(rstd, no_bdim, level)};
  }
  const bool batched_affine = is_batched(weight, level) || is_batched(bias, level);
  const JoinedWithN joined(input, level);
  const auto [output, mean, rstd] = at::native_group_norm_symint(
      joined.value().contiguous(),
      batched_affine ? OptionalTensor() : optional_value(weight, level),
      batched_affine ? OptionalTensor() : optional_value(bias, level), n * level.batch_size,
      channels, channel_size, group, eps);
  auto result = joined.part(output);
  if (batched_affine) {
    const auto front = [&](const OptionalTensor& tensor) {
      return tensor && tensor->defined() ? per_channel(at_front(*tensor, level), input.dim())
                                         : at::Tensor();
    };
    result = scale_and_shift(at_front(result, level), front(weight), front(bias), level);
  }
  return {result, joined.part(mean), joined.part(rstd)};
}

// The last dimensions of a value as `sizes`; what is in front of its logical `rank` stays.
at::Tensor reshaped(const at::Tensor& tensor, c10::SymIntArrayRef sizes, const Level& level) {
  const auto all = is_batched_at(tensor, level) ? physical_sizes(sizes, level) : sizes.vec();
  return at_front(tensor, level).reshape_symint(all);
}

// Of samples of one image each: with their channels side by side they are one image with a weight
// for each sample's channel, all of whose gradients PyTorch's kernel computes.
Three group_norm_backward_of_images(Level& level, const at::Tensor& grad_output,
                                    const at::Tensor& input, const at::Tensor& mean,
                                    const at::Tensor& rstd, const OptionalTensor& weight,
                                    const c10::SymInt& channels, const c10::SymInt& channel_size,
                                    int64_t group, std::array<bool, 3> output_mask) {
  const auto samples = level.batch_size.expect_int();
  const auto joined = [&](const at::Tensor& tensor) {
    auto value = expanded_at_front(tensor, level).contiguous();
    auto sizes = value.sym_sizes().vec();
    sizes[0] = 1;
    sizes[1] = tensor.sym_size(1) * samples;
    sizes.erase(sizes.begin() + 2);
    return value.view_symint(sizes);
  };
  auto [of_input, of_weight, of_bias] = at::native_group_norm_backward_symint(
      joined(grad_output), joined(input), joined(mean), joined(rstd),
      expanded_at_front(*weight, level).reshape({-1}), 1, channels * samples, channel_size,
      group * samples, output_mask);
  const auto of_channels = [&](const at::Tensor& gradient) {
    return gradient.defined() ? wrap(gradient.view_symint({samples, channels}), 0, level)
                              : at::Tensor();
  };
  return {of_input.defined()
              ? wrap(of_input.view_symint(physical_sizes(input.sym_sizes(), level)), 0, level)
              : at::Tensor(),
          of_channels(of_weight), of_channels(of_bias)};
}

Three group_norm_backward_rule(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                               const at::Tensor& mean, const at::Tensor& rstd,
                               const OptionalTensor& weight, c10::SymInt n, c10::SymInt channels,
                               c10::SymInt channel_size, int64_t group,
                               std::array<bool, 3> output_mask) {
  TORCH_CHECK(group > 0, "group_norm: expected at least one group, but got ", group);
  const bool has_weight = weight && weight->defined();
  if (n == 1 && has_weight && (output_mask[1] || output_mask[2]) &&
      level.batch_size.maybe_as_int() && !has_no_samples(level) &&
      !is_differentiated_below(grad_output, level) && !is_differentiated_below(input, level) &&
      !is_differentiated_below(*weight, level)) {
    return group_norm_backward_of_images(level, grad_output, input, mean, rstd, weight, channels,
                                         channel_size, group, output_mask);
  }
  const bool batched_grad = is_batched_at(grad_output, level);
  const bool batched = batched_grad || is_batched_at(input, level);
  Three gradients;
  if (output_mask[0]) {
    const bool scales = is_batched(weight, level);
    const auto scaled = scales ? wrap(at::mul(at_front(grad_output, level),
                                              per_channel(at_front(*weight, level), input.dim())),
                                      0, level)
                               : grad_output;
    const auto joined = [&](const at::Tensor& tensor) {
      return merge_into(expanded_at_front(tensor, level), 0).contiguous();
    };
    const auto gradient = std::get<0>(at::native_group_norm_backward_symint(
        joined(scaled), joined(input), joined(mean), joined(rstd),
        scales ? OptionalTensor() : optional_value(weight, level), n * level.batch_size, channels,
        channel_size, group, {true, false, false}));
    auto sizes = physical_sizes(input.sym_sizes(), level);
    std::get<0>(gradients) = wrap(gradient.reshape_symint(sizes), 0, level);
  }
  if (!output_mask[1] && !output_mask[2]) {
    return gradients;
  }
  const std::vector<c10::SymInt> by_channel = {n, channels, channel_size};
  const std::vector<c10::SymInt> by_group = {n, c10::SymInt(group), channels / group};
  // Sums of half-precision numbers are taken in single precision, as in PyTorch's kernel.
  const auto precise = [](const at::Tensor& tensor) {
    return at::isReducedFloatingType(tensor.scalar_type()) ? tensor.to(at::kFloat) : tensor;
  };
  const auto grad = precise(reshaped(grad_output, by_channel, level));
  const auto grad_sum = grad.sum(-1);  // (B?, N, C)
  if (output_mask[1]) {
    // The sum of grad * (input - mean) * rstd, with the statistics of a group taken out of the sum.
    const auto product = at::mul(grad, precise(reshaped(input, by_channel, level))).sum(-1);
    const auto grouped = [&](const at::Tensor& sum, bool sum_is_batched) {
      return reshaped(wrap_if(sum, sum_is_batched, level), by_group, level);
    };
    const auto centred =
        at::sub(grouped(product, batched),
                at::mul(grouped(grad_sum, batched_grad), at_front(mean, level).unsqueeze(-1)));
    const auto scaled = at::mul(centred, at_front(rstd, level).unsqueeze(-1));
    std::get<1>(gradients) =
        wrap_if(for_weight(scaled.sum(batched ? 1 : 0).flatten(-2), weight), batched, level);
  }
  if (output_mask[2]) {
    const auto sum = grad_sum.sum(batched_grad ? 1 : 0);
    std::get<2>(gradients) = wrap_if(sum.to(grad_output.scalar_type()), batched_grad, level);
  }
  return gradients;
}

}  // namespace

void register_layer_norm_rules() {
  add<at::_ops::native_layer_norm>(layer_norm_rule);
  add<at::_ops::native_layer_norm_backward>(layer_norm_backward_rule);
  add<at::_ops::native_group_norm>(group_norm_rule);
  add<at::_ops::native_group_norm_backward>(group_norm_backward_rule);

  // Made of the above.
  add_decomposition<at::_ops::layer_norm>();
  add_decomposition<at::_ops::group_norm>();
}

}  // namespace functorch_ext
