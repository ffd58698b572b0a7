#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// jvp's common case without Python's pytrees: primals and tangents are tuples of tensors, or of
// plain containers of tensors, that agree in structure, shapes and dtypes. Returns (output,
// tangent); finish(frame, output), what it returns, where the output has another form, or where
// `strict` and a tensor of it has no tangent. Returns NotImplemented, having called nothing, where
// the primals or tangents have another form.
pybind11::object call_forward(const pybind11::object& func, const pybind11::object& primals,
                              const pybind11::object& tangents, bool strict,
                              const pybind11::object& finish);

}  // namespace functorch_ext
