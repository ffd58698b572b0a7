#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// By name, what torch.Tensor's x[...] and x[...] = y are to be replaced by, to take numbers that
// differ between samples.
pybind11::dict indexing_methods(const pybind11::object& tensor_class);

}  // namespace functorch_ext
