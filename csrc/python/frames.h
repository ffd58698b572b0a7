#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Binds what starts and ends transforms: functions that call a function of Python's in between.
void bind_frames(pybind11::module_& module);

}  // namespace functorch_ext
