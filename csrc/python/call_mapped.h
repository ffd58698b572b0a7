#pragma once

#include <pybind11/pybind11.h>

#include "engine/level.h"

namespace functorch_ext {

// vmap's common case without Python's pytrees: positional arguments that are tensors, or plain
// containers of them, each mapped over one dimension or, with None, not mapped. `dims` is a pair:
// in_dims, an int or a tuple of these, and out_dim, an int. Calls `func` with them, and returns its
// output with the samples at out_dim if that is made of tensors; else finish(level, output).
// Returns NotImplemented, having called nothing, where the arguments are of another form or don't
// fit together.
//
// (pybind11 passes six arguments on without allocating memory, and not one more.)
pybind11::object call_mapped(const pybind11::object& func, const pybind11::tuple& args,
                             const pybind11::dict& kwargs, const pybind11::tuple& dims,
                             Randomness randomness, const pybind11::object& finish);

}  // namespace functorch_ext
