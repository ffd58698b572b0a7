#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// _C.adapt_saved_tensors_hooks(adapt): has the hooks of saved tensors that a program set before a
// transform began replaced, when it begins, by adapt(pack, unpack), a pair that works on the planes
// of the tensors that it gets.
void bind_saved_tensors_hooks(pybind11::module_& module);

}  // namespace functorch_ext
