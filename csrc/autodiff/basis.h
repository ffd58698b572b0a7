#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace functorch_ext {

// `count` vectors of the standard basis of the space of all the tensors' elements, from number
// `start` on: one tensor of shape (count, *tensor.shape) for each tensor, which is plain unless the
// tensor is of a class of its own (subclasses.h).
std::vector<at::Tensor> standard_basis(const std::vector<at::Tensor>& tensors,
                                       const c10::SymInt& start, const c10::SymInt& count);

}  // namespace functorch_ext
