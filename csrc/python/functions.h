#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// What the front-end for custom autograd functions needs to give them tangents without a jvp.
void bind_python_functions(pybind11::module_& module);

}  // namespace functorch_ext
