#pragma once

#include <pybind11/pybind11.h>

#include "engine/level.h"

namespace functorch_ext {

// A mapped function, as call(args, kwargs), without Python's pytrees in the common case: positional
// arguments that are tensors, or plain containers of them, each mapped over one dimension or, with
// None, not mapped. `in_dims` is an int or a tuple of these. Calls `func` with samples, and returns
// its output with the samples at `out_dim` if that is made of tensors; else finish(level, output).
//
// Where in_dims or the arguments have another form, or don't fit together, otherwise(args, kwargs)
// is called in place of all this.
pybind11::object mapped_call(const pybind11::object& func, const pybind11::object& in_dims,
                             int64_t out_dim, Randomness randomness, const pybind11::object& finish,
                             const pybind11::object& otherwise);

}  // namespace functorch_ext
