#pragma once

#include <ATen/core/Tensor.h>

namespace functorch_ext {

// The tangent of left @ right, of two matrices or of two stacks of them; undefined where none
// flows, or where PyTorch's own formula had better compute it.
at::Tensor tangent_of_product(const at::Tensor& left, const at::Tensor& right);
// That of beta * term + alpha * left @ right.
at::Tensor tangent_of_sum(const at::Tensor& term, const at::Tensor& left, const at::Tensor& right,
                          const at::Scalar& beta, const at::Scalar& alpha);

}  // namespace functorch_ext
