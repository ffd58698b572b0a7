#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Is torch.autograd.Function.apply(*args, **kwargs) PyTorch's own affair, whatever differentiates
// on plane 0? Not if a level runs or an argument is of one, if a tangent flows, or if modes or
// transforms of torch.func's see it. (`kwargs` may be null or None.)
bool is_plain_application(PyObject* args, PyObject* kwargs);

// _C.is_plain_application(args, kwargs): the same, for code of PyTorch's that it is put into.
void bind_plain_application(pybind11::module_& module);

}  // namespace functorch_ext
