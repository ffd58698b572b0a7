#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// A function with its gradient, as call(args, kwargs), without Python's pytrees in the common case:
// the argument at `argnum` is a tensor, or a plain container of tensors, of floating-point or
// complex numbers. Returns (gradient, output, None), or None for the output too, without the value;
// check(output) raises where the output is not a number.
//
// Where the argument has another form, otherwise(args, kwargs) is called in place of all this.
pybind11::object differentiated_call(const pybind11::object& func, int64_t argnum,
                                     const pybind11::object& check, bool with_value,
                                     const pybind11::object& otherwise);

}  // namespace functorch_ext
