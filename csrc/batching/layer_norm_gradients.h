#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace functorch_ext {

// The gradients of layer norms for each sample: of the input, (B, ...) as `grad` and `input` have
// it, and the sums for its weight and bias, (B, size). Mean and inverse deviation are those of rows
// of `size` numbers. The weight, (size) of all samples or (B, size), may be undefined. Plain
// tensors on a CPU, all float or all double.
std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm_gradients(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& mean, const at::Tensor& rstd,
    const at::Tensor& weight, int64_t size, bool of_input);

}  // namespace functorch_ext
