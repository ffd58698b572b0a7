#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "engine/level.h"

namespace functorch_ext {

using LinearRule = at::Tensor (*)(Level&, const at::Tensor& input, const at::Tensor& weight,
                                  const std::optional<at::Tensor>& bias);

// A linear layer on a plane that differentiates, as one node of autograd's graph; none where its
// derivatives have to be those of the operators that PyTorch makes it of. `rule` computes it.
std::optional<at::Tensor> linear_in_one_node(LinearRule rule, Level& level, const at::Tensor& input,
                                             const at::Tensor& weight,
                                             const std::optional<at::Tensor>& bias);

// A stack of layers, (B, O, I) with biases (B, O), each of a batch of its own, (B, N, I).
at::Tensor linear_of_stacks(const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias);

// The product of two stacks of matrices. Its gradients lie in memory as the factors do: PyTorch's,
// by a transposed factor, are transposed, and what is pointwise then takes many times as long.
at::Tensor product_of_stacks(const at::Tensor& left, const at::Tensor& right);

// What the steps of a sequence use in place of a layer's `weight`, so that its gradient is one
// product for all of them (derivatives/weight_of_steps.h); `weight` itself where none is recorded.
at::Tensor weight_of_steps(const at::Tensor& weight);

}  // namespace functorch_ext
