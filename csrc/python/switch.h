#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// _C.switch(plain, ours): a function in place of one of PyTorch's. While nothing of the engine is
// in play it calls `plain`, PyTorch's own, and that is all that programs without transforms pay.
void bind_switch(pybind11::module_& module);

}  // namespace functorch_ext
