#pragma once

#include <ATen/core/Tensor.h>

namespace functorch_ext {

// The products of two stacks of matrices, (B, n, k) and (B, k, m), into `product`, which is
// contiguous. All are plain tensors of one dtype on a CPU, with at least one number each. Products
// of few factors, as the gradients of a weight by each sample are, cost less arithmetic than
// writing them to memory that isn't in the cache; so they are computed in parts that fit there.
void multiply_stacks(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right);

}  // namespace functorch_ext
