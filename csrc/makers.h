#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Lets what `function` returns belong to the vmap that it is called in (see engine/own_memory.h):
// a builtin function of PyTorch that makes a new tensor, such as torch.zeros, or a method such as
// torch.Tensor.new_zeros.
void own_results_of(const pybind11::object& function);

}  // namespace functorch_ext
