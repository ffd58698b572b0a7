// Fake quantization whose scale and zero point are learnt: what reverse mode takes for the
// derivative by each argument, which is one of straight lines, pushes tangents forward as well.
#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

at::Tensor constant(const at::Tensor& tensor) {
  return tensor.detach();
}

// PyTorch's backward sums the gradients of elements that share a scale. Where each element is a
// channel of its own it gives all of them. `rounded` is the zero point as the operator rounds it.
at::Tensor straightened(const at::Tensor& value, const at::Tensor& x, const at::Tensor& scale,
                        const at::Tensor& zero_point, const at::Tensor& rounded, int64_t quant_min,
                        int64_t quant_max, double grad_factor) {
  const auto expanded = [&](const at::Tensor& tensor) {
    return constant(tensor).expand_as(x).reshape({-1});
  };
  const auto numbers = expanded(x).unsqueeze(1);
  const auto [by_x, by_scale, by_zero] = at::_fake_quantize_learnable_per_channel_affine_backward(
      at::ones_like(numbers), numbers, expanded(scale), expanded(rounded), /*axis=*/0, quant_min,
      quant_max, grad_factor);
  auto result = value;
  const auto add = [&](const at::Tensor& argument, const at::Tensor& derivative) {
    result = result + (argument - constant(argument)) * derivative.reshape_as(x);
  };
  add(x, by_x);
  add(scale, by_scale);
  add(zero_point, by_zero);
  return result;
}

at::Tensor quantized_per_tensor(const at::Tensor& x, const at::Tensor& scale,
                                const at::Tensor& zero_point, int64_t quant_min, int64_t quant_max,
                                double grad_factor) {
  const auto value = at::_fake_quantize_learnable_per_tensor_affine(
      constant(x), constant(scale), constant(zero_point), quant_min, quant_max, grad_factor);
  const auto rounded = (constant(zero_point) + 0.5).trunc();
  return straightened(value, x, scale, zero_point, rounded, quant_min, quant_max, grad_factor);
}

at::Tensor quantized_per_channel(const at::Tensor& x, const at::Tensor& scale,
                                 const at::Tensor& zero_point, int64_t axis, int64_t quant_min,
                                 int64_t quant_max, double grad_factor) {
  const auto value = at::_fake_quantize_learnable_per_channel_affine(
      constant(x), constant(scale), constant(zero_point), axis, quant_min, quant_max, grad_factor);
  std::vector<int64_t> shape(x.dim(), 1);
  shape[c10::maybe_wrap_dim(axis, x.dim())] = -1;
  const auto zero = zero_point.reshape(shape);
  return straightened(value, x, scale.reshape(shape), zero, zero, quant_min, quant_max,
                      grad_factor);
}

}  // namespace

void register_fake_quantization_derivatives() {
  using namespace at::_ops;
  add_computed_when<_fake_quantize_learnable_per_tensor_affine, has_tangents,
                    quantized_per_tensor>();
  add_computed_when<_fake_quantize_learnable_per_channel_affine, has_tangents,
                    quantized_per_channel>();
}

}  // namespace functorch_ext
