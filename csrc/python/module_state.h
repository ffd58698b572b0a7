#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Binds what functional_call does for each call to a module's tables of parameters and buffers.
void bind_module_state(pybind11::module_& module);

}  // namespace functorch_ext
