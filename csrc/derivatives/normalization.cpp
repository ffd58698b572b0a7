// Batch and layer normalization: to be differentiated any number of times, where PyTorch's formulas
// take the statistics as constants after the first or second time.
#include <tuple>
#include <utility>

#include "batching/running_statistics.h"
#include "derivatives/given.h"
#include "derivatives/register.h"
#include "derivatives/second_order.h"
#include "derivatives/unrecorded_tangents.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// (x - mean) * scale, with scale = 1 / sqrt(variance + epsilon).
struct Normalized {
  template <class Epsilon>
  Normalized(const at::Tensor& input, const at::Tensor& given_mean,
             const at::Tensor& given_variance, const Epsilon& epsilon)
      : mean(given_mean),
        variance(given_variance),
        scale((variance + epsilon).rsqrt()),
        x((input - mean) * scale) {}

  // Of the scale itself.
  Normalized(const at::Tensor& input, const at::Tensor& given_mean, const at::Tensor& given_scale)
      : mean(given_mean), scale(given_scale), x((input - mean) * scale) {}

  // With the statistics of the input itself, over some dimensions.
  template <class Epsilon>
  Normalized(const at::Tensor& input, at::IntArrayRef over, const Epsilon& epsilon)
      : Normalized(input, input.mean(over, /*keepdim=*/true), over, epsilon) {}

  at::Tensor mean;
  at::Tensor variance;  // undefined where the scale is given
  at::Tensor scale;
  at::Tensor x;

 private:
  template <class Epsilon>
  Normalized(const at::Tensor& input, const at::Tensor& mean, at::IntArrayRef over,
             const Epsilon& epsilon)
      : Normalized(input, mean, (input - mean).square().mean(over, /*keepdim=*/true), epsilon) {}
};

// Channels are dimension 1.
struct ByChannel {
  explicit ByChannel(const at::Tensor& input) : shape(input.dim(), 1) {
    shape[1] = -1;
    for (int64_t dim = 0; dim < input.dim(); ++dim) {
      if (dim != 1) {
        others.push_back(dim);
      }
    }
  }
  c10::DimVector shape;  // of a value for each channel, next to the input
  c10::DimVector others;

  Normalized normalized(const at::Tensor& input, const OptionalTensor& running_mean,
                        const OptionalTensor& running_var, bool training, double epsilon) const {
    return training ? Normalized(input, others, epsilon)
                    : Normalized(input, running_mean->reshape(shape), running_var->reshape(shape),
                                 epsilon);
  }
};

c10::DimVector last_dims(int64_t count) {
  c10::DimVector dims;
  for (int64_t dim = -count; dim < 0; ++dim) {
    dims.push_back(dim);
  }
  return dims;
}

at::Tensor affine(at::Tensor x, const OptionalTensor& weight, const OptionalTensor& bias,
                  at::IntArrayRef shape) {
  const auto shaped = [&](const at::Tensor& tensor) {
    return shape.empty() ? tensor : tensor.reshape(shape);
  };
  if (is_given(weight)) {
    x = x * shaped(*weight);
  }
  return is_given(bias) ? x + shaped(*bias) : x;
}

void update(const OptionalTensor& running, const at::Tensor& value, double momentum) {
  if (is_given(running)) {
    running->copy_(*running * (1 - momentum) + value.detach() * momentum);
  }
}

Three batch_norm(const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
                 const OptionalTensor& running_mean, const OptionalTensor& running_var,
                 bool training, double momentum, double epsilon) {
  const ByChannel channels(input);
  const auto normal = channels.normalized(input, running_mean, running_var, training, epsilon);
  const auto output = affine(normal.x, weight, bias, channels.shape);
  if (!training) {
    const auto nothing = at::empty({0}, input.options());
    return {output, nothing, nothing};
  }
  if (is_wrapper(normal.mean) && wrapper_of(normal.mean)->is_batched() && is_given(running_mean)) {
    check_running_statistics(running_mean, running_var, wrapper_of(normal.mean)->level());
  }
  const auto samples = input.sym_numel() / input.sym_size(1);
  update(running_mean, normal.mean.flatten(), momentum);
  // The running variance is that of a sample, with one degree of freedom less.
  const auto variance = normal.variance.flatten() * at::Scalar(samples) / at::Scalar(samples - 1);
  update(running_var, variance, momentum);
  return {output, normal.mean.flatten(), normal.scale.flatten()};
}

Three batch_norm_legit(const at::Tensor& input, const OptionalTensor& weight,
                       const OptionalTensor& bias, at::Tensor& running_mean,
                       at::Tensor& running_var, bool training, double momentum, double epsilon) {
  return batch_norm(input, weight, bias, running_mean, running_var, training, momentum, epsilon);
}

Three batch_norm_no_stats(const at::Tensor& input, const OptionalTensor& weight,
                          const OptionalTensor& bias, bool training, double momentum,
                          double epsilon) {
  return batch_norm(input, weight, bias, {}, {}, training, momentum, epsilon);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> batch_norm_with_update(
    const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
    at::Tensor& running_mean, at::Tensor& running_var, double momentum, double epsilon) {
  auto [output, mean, scale] = batch_norm(input, weight, bias, running_mean, running_var,
                                          /*training=*/true, momentum, epsilon);
  return {output, mean, scale, at::empty({0}, input.options().dtype(at::kByte))};
}

// Broadcasting would take other shapes as well.
void check_normalized_shape(const at::Tensor& input, c10::SymIntArrayRef shape,
                            const OptionalTensor& weight, const OptionalTensor& bias) {
  const auto sizes = input.sym_sizes();
  TORCH_CHECK(!shape.empty() && sizes.size() >= shape.size() &&
                  sizes.slice(sizes.size() - shape.size()) == shape,
              "Given normalized_shape=", shape, ", expected input with that shape at the end, but ",
              "got input of size ", sizes);
  for (const auto& [name, tensor] : {std::pair("weight", &weight), std::pair("bias", &bias)}) {
    TORCH_CHECK(!*tensor || !(*tensor)->defined() || (*tensor)->sym_sizes() == shape, "Expected ",
                name, " to be of same shape as normalized_shape, but got ", name, " of shape ",
                (*tensor)->sym_sizes(), " and normalized_shape = ", shape);
  }
}

Three layer_norm(const at::Tensor& input, c10::SymIntArrayRef normalized_shape,
                 const OptionalTensor& weight, const OptionalTensor& bias, double epsilon) {
  check_normalized_shape(input, normalized_shape, weight, bias);
  const Normalized normal(input, last_dims(normalized_shape.size()), epsilon);
  return {affine(normal.x, weight, bias, {}), normal.mean, normal.scale};
}

// A layer drops the statistics that the operator returns. PyTorch takes them for constants, and it
// is only the program itself that can want their derivatives.
template <class Layer, class Signature = typename Layer::schema>
struct LayerKernel;
template <class Layer, class... Parameters>
struct LayerKernel<Layer, at::Tensor(Parameters...)> {
  static at::Tensor kernel(c10::DispatchKeySet keys, Parameters... arguments) {
    const Scoped<&ThreadState::drops_statistics> in_layer(true);
    return Layer::redispatch(below_derivatives(keys), std::forward<Parameters>(arguments)...);
  }
};

inline constexpr auto needs_statistics = [](const auto&... arguments) {
  return !thread_state().drops_statistics && any_differentiated(arguments...);
};
inline constexpr auto needs_parts = [](const auto&... arguments) {
  return has_tangents_to_differentiate(arguments...) || needs_statistics(arguments...);
};

// PyTorch's gradients by group norm's statistics are zero unless its output has one too.
Three group_norm(const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
                 c10::SymInt samples, c10::SymInt channels, c10::SymInt points, int64_t groups,
                 double epsilon) {
  const auto size = channels / groups * points;  // of a group
  const Normalized normal(input.reshape_symint({samples, groups, size}), {2}, epsilon);
  const auto output =
      affine(normal.x.reshape_symint(input.sym_sizes()), weight, bias, ByChannel(input).shape);
  return {output, normal.mean.squeeze(2), normal.scale.squeeze(2)};
}

// What a backward pass computes for the input. The sums run over `over`.
at::Tensor input_gradient(const at::Tensor& gradient, const Normalized& normal,
                          at::IntArrayRef over) {
  const auto average = [&](const at::Tensor& tensor) {
    return tensor.mean(over, /*keepdim=*/true);
  };
  return (gradient - average(gradient) - normal.x * average(gradient * normal.x)) * normal.scale;
}

Three batch_norm_backward(const at::Tensor& grad_output, const at::Tensor& input,
                          const OptionalTensor& weight, const OptionalTensor& running_mean,
                          const OptionalTensor& running_var, const OptionalTensor&,
                          const OptionalTensor&, bool training, double epsilon,
                          std::array<bool, 3> output_mask) {
  const ByChannel channels(input);
  const auto normal = channels.normalized(input, running_mean, running_var, training, epsilon);
  const auto gradient = affine(grad_output, weight, {}, channels.shape);
  const auto sum = [&](const at::Tensor& tensor) { return tensor.sum(channels.others); };
  return {!output_mask[0] ? at::Tensor()
          : training      ? input_gradient(gradient, normal, channels.others)
                          : gradient * normal.scale,
          output_mask[1] ? sum(grad_output * normal.x) : at::Tensor(),
          output_mask[2] ? sum(grad_output) : at::Tensor()};
}

// With the statistics of the input as its functions. The operators of a backward pass aren't told
// epsilon.
Normalized normalized_again(const at::Tensor& input, const at::Tensor& mean,
                            const at::Tensor& scale, at::IntArrayRef over) {
  const auto deviation = input.detach() - mean.detach();
  const auto epsilon = scale.detach().pow(-2) - deviation.square().mean(over, /*keepdim=*/true);
  return Normalized(input, over, epsilon);
}

Three layer_norm_backward(const at::Tensor& grad_output, const at::Tensor& input,
                          c10::SymIntArrayRef normalized_shape, const at::Tensor& mean,
                          const at::Tensor& scale, const OptionalTensor& weight,
                          const OptionalTensor&, std::array<bool, 3> output_mask) {
  const auto over = last_dims(normalized_shape.size());
  const auto normal = normalized_again(input, mean, scale, over);
  const auto sum = [&](const at::Tensor& tensor) {
    return tensor.sum_to_size_symint(normalized_shape);
  };
  return {output_mask[0] ? input_gradient(affine(grad_output, weight, {}, {}), normal, over)
                         : at::Tensor(),
          output_mask[1] ? sum(grad_output * normal.x) : at::Tensor(),
          output_mask[2] ? sum(grad_output) : at::Tensor()};
}

// PyTorch takes running statistics for constants where they aren't updated, too.
inline constexpr auto needs_parts_or_statistics =
    [](const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
       const OptionalTensor& running_mean, const OptionalTensor& running_var, bool training, double,
       double) {
      return needs_parts(input, weight, bias, running_mean, running_var) ||
             (!training && any_differentiated(running_mean, running_var));
    };

// Of operators that have forward mode, which the fused one lacks.
Three group_norm_backward_with_tangents(const at::Tensor& grad_output, const at::Tensor& input,
                                        const at::Tensor& mean, const at::Tensor& rstd,
                                        const OptionalTensor& weight, c10::SymInt n,
                                        c10::SymInt channels, c10::SymInt channel_size,
                                        int64_t group, std::array<bool, 3> output_mask) {
  TORCH_CHECK(group > 0, "group_norm: expected at least one group, but got ", group);
  const std::vector<c10::SymInt> by_group = {n, group, channels / group, channel_size};
  const auto of_group = [](const at::Tensor& tensor) { return tensor.unsqueeze(-1).unsqueeze(-1); };
  const auto grad = grad_output.reshape_symint(by_group);
  const auto grouped = input.reshape_symint(by_group);
  // Where tangents aren't recorded, autograd saved the statistics before they had theirs.
  const auto normal = any_tangent(input) && !any_tangent(mean)
                          ? normalized_again(grouped, of_group(mean), of_group(rstd), {2, 3})
                          : Normalized(grouped, of_group(mean), of_group(rstd));
  Three gradients;
  if (output_mask[0]) {
    const auto scaled =
        is_given(weight) ? grad * weight->reshape_symint({1, group, channels / group, 1}) : grad;
    const auto average = [](const at::Tensor& tensor) { return tensor.mean({2, 3}, true); };
    const auto centred = scaled - average(scaled) - normal.x * average(scaled * normal.x);
    std::get<0>(gradients) = (centred * normal.scale).reshape_symint(input.sym_sizes());
  }
  if (output_mask[1]) {
    std::get<1>(gradients) = (grad * normal.x).sum(at::IntArrayRef{0, 3}).flatten();
  }
  if (output_mask[2]) {
    std::get<2>(gradients) = grad.sum(at::IntArrayRef{0, 3}).flatten();
  }
  return gradients;
}

template <class Op, auto when, auto same, class Signature = typename Op::schema>
struct NormKernel;
template <class Op, auto when, auto same, class Return, class... Parameters>
struct NormKernel<Op, when, same, Return(Parameters...)> {
  static Return kernel(c10::DispatchKeySet keys, Parameters... arguments) {
    const auto compute = [&](const auto&... its) {
      return ComputedWhen<Op, when, same>::kernel(keys, its...);
    };
    if (C10_LIKELY(!records_tangents_for_nobody(keys, arguments...)) ||
        is_composed_without_tangents(arguments...)) {
      return compute(arguments...);
    }
    return with_unrecorded_tangents([&] { return without_update(compute, arguments...); },
                                    [&] { return compute(arguments...); });
  }

 private:
  // Then its parts save what has tangents of its own.
  static bool is_composed_without_tangents(const Parameters&... arguments) {
    const c10::AutoFwGradMode without_tangents(false);
    return when(arguments...);
  }
  // In training a batch norm writes the running statistics, and makes no other use of them.
  template <class Compute>
  static Return without_update(const Compute& compute, const at::Tensor& input,
                               const OptionalTensor& weight, const OptionalTensor& bias,
                               const OptionalTensor& running_mean,
                               const OptionalTensor& running_var, bool training, double momentum,
                               double epsilon) {
    return training ? compute(input, weight, bias, OptionalTensor(), OptionalTensor(), training,
                              momentum, epsilon)
                    : compute(input, weight, bias, running_mean, running_var, training, momentum,
                              epsilon);
  }
  template <class Compute, class... Others>
  static Return without_update(const Compute& compute, const Others&... arguments) {
    return compute(arguments...);
  }
};

template <class Op, auto when, auto same>
void add_norm() {
  add_derivative_kernel<Op>(&NormKernel<Op, when, same>::kernel);
}

}  // namespace

void register_normalization_derivatives() {
  add_computed_when<at::_ops::native_group_norm_backward, has_tangents,
                    group_norm_backward_with_tangents>();
  using namespace at::_ops;
  add_derivative_kernel<at::_ops::batch_norm>(&LayerKernel<at::_ops::batch_norm>::kernel);
  add_derivative_kernel<at::_ops::group_norm>(&LayerKernel<at::_ops::group_norm>::kernel);
  add_norm<native_group_norm, needs_statistics, functorch_ext::group_norm>();
  add_derivative_kernel<at::_ops::layer_norm>(&LayerKernel<at::_ops::layer_norm>::kernel);
  add_norm<native_batch_norm, needs_parts_or_statistics, functorch_ext::batch_norm>();
  add_computed_when<_native_batch_norm_legit, needs_parts_or_statistics,
                    functorch_ext::batch_norm_legit>();
  add_computed_when<_native_batch_norm_legit_no_stats, needs_parts,
                    functorch_ext::batch_norm_no_stats>();
  add_computed_when<_batch_norm_with_update, needs_parts, functorch_ext::batch_norm_with_update>();
  add_norm<native_layer_norm, needs_parts, functorch_ext::layer_norm>();
  add_computed_when<at::_ops::native_batch_norm_backward, is_differentiated_here,
                    batch_norm_backward>();
  add_computed_when<at::_ops::native_layer_norm_backward, is_differentiated_here,
                    layer_norm_backward>();
}

}  // namespace functorch_ext
