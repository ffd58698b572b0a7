#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// grad's common case without Python's pytrees: the argument at `argnum` is a tensor, or a plain
// container of tensors, of floating-point or complex numbers. Returns (gradient, output), or
// (gradient, None) without the value; check(output) raises where the output is not a number.
// Returns NotImplemented, having called nothing, where the argument has another form.
pybind11::object call_differentiated(const pybind11::object& func, const pybind11::tuple& args,
                                     const pybind11::dict& kwargs, int64_t argnum,
                                     const pybind11::object& check, bool with_value);

}  // namespace functorch_ext
