#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Lets what `function` returns belong to the vmap that it is called in (see engine/own_memory.h):
// a builtin function of PyTorch that makes a new tensor, such as torch.zeros, or a method such as
// torch.Tensor.new_zeros. What is a copy may be part of a graph, and then doesn't belong to it.
void own_results_of(const pybind11::object& function, bool is_copy);

}  // namespace functorch_ext
