#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <vector>

namespace functorch_ext {

// Tensors without data that have the sizes and strides that the results of a view operator have for
// the program, whatever the values below look like: copies are laid out in another way than views,
// and so is the result of a mutation. Whether reshape views or copies depends on it.
//
// `arguments` are those of the plane below, with `self` standing for `value`. Empty: the operator
// can't tell without data.
std::vector<at::Tensor> geometries_of_view(const c10::OperatorHandle& op,
                                           torch::jit::Stack arguments, size_t self_position,
                                           const at::Tensor& self, const at::Tensor& value);

}  // namespace functorch_ext
