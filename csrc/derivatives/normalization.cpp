// Batch and layer normalization.
#include <tuple>

#include "derivatives/register.h"
#include "derivatives/second_order.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

bool is_given(const OptionalTensor& tensor) {
  return tensor && tensor->defined();
}

// (x - mean) / sqrt(variance + epsilon), with the inverse of the root.
std::pair<at::Tensor, at::Tensor> normalized(const at::Tensor& x, const at::Tensor& mean,
                                             const at::Tensor& variance, double epsilon) {
  const auto scale = (variance + epsilon).rsqrt();
  return {(x - mean) * scale, scale};
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
    running->mul_(1 - momentum).add_(value.detach(), momentum);
  }
}

Three batch_norm(const at::Tensor& input, const OptionalTensor& weight, const OptionalTensor& bias,
                 const OptionalTensor& running_mean, const OptionalTensor& running_var,
                 bool training, double momentum, double epsilon) {
  c10::DimVector over;
  c10::DimVector by_channel(input.dim(), 1);
  for (int64_t dim = 0; dim < input.dim(); ++dim) {
    if (dim != 1) {
      over.push_back(dim);
    }
  }
  by_channel[1] = -1;
  if (!training) {
    const auto [x, scale] = normalized(input, running_mean->reshape(by_channel),
                                       running_var->reshape(by_channel), epsilon);
    const auto nothing = at::empty({0}, input.options());
    return {affine(x, weight, bias, by_channel), nothing, nothing};
  }
  const auto mean = input.mean(over, /*keepdim=*/true);
  const auto variance = (input - mean).square().mean(over, /*keepdim=*/true);
  const auto [x, scale] = normalized(input, mean, variance, epsilon);
  const auto samples = input.sym_numel() / input.sym_size(1);
  update(running_mean, mean.flatten(), momentum);
  // The running variance is that of a sample, with one degree of freedom less.
  update(running_var, variance.flatten() * at::Scalar(samples) / at::Scalar(samples - 1), momentum);
  return {affine(x, weight, bias, by_channel), mean.flatten().detach(), scale.flatten().detach()};
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

Three layer_norm(const at::Tensor& input, c10::SymIntArrayRef normalized_shape,
                 const OptionalTensor& weight, const OptionalTensor& bias, double epsilon) {
  c10::DimVector over;
  for (int64_t dim = -static_cast<int64_t>(normalized_shape.size()); dim < 0; ++dim) {
    over.push_back(dim);
  }
  const auto mean = input.mean(over, /*keepdim=*/true);
  const auto variance = (input - mean).square().mean(over, /*keepdim=*/true);
  const auto [x, scale] = normalized(input, mean, variance, epsilon);
  return {affine(x, weight, bias, {}), mean, scale};
}

}  // namespace

void register_normalization_derivatives() {
  add_second_order<at::_ops::native_batch_norm, batch_norm>();
  add_second_order<at::_ops::_native_batch_norm_legit, batch_norm_legit>();
  add_second_order<at::_ops::_native_batch_norm_legit_no_stats, batch_norm_no_stats>();
  add_second_order<at::_ops::_batch_norm_with_update, batch_norm_with_update>();
  add_second_order<at::_ops::native_layer_norm, layer_norm>();
}

}  // namespace functorch_ext
