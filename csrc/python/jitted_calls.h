#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Binds JittedCalls: from the signature of a call to what was compiled for it.
void bind_jitted_calls(pybind11::module_& module);

}  // namespace functorch_ext
