#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace functorch_ext {

// `count` vectors of the standard basis of the space of all the tensors' elements, from number
// `start` on: one plain tensor of shape (count, *tensor.shape) for each tensor.
std::vector<at::Tensor> standard_basis(const std::vector<at::Tensor>& tensors, int64_t start,
                                       int64_t count);

}  // namespace functorch_ext
