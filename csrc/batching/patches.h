#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace functorch_ext {

// How a convolution without groups takes patches of its input; a number for each spatial dimension.
struct Patches {
  std::vector<int64_t> kernel, stride, padding, dilation;
};

// The gradient of each sample's weight: products of the output's gradient, (B, N, O, outputs...),
// with the patches of the input, (B, N, C, ...), that the outputs are computed from. Both are plain
// tensors on a CPU, of one floating-point or complex dtype of 2 to 16 bytes.
at::Tensor weight_gradient_of_patches(const at::Tensor& grad, const at::Tensor& input,
                                      const Patches& patches);

}  // namespace functorch_ext
