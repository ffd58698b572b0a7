#pragma once

#include <pybind11/pybind11.h>
#include <torch/csrc/Exceptions.h>

// Functions that Python makes once and calls often, as call(args, kwargs).
//
// pybind11 looks at every argument of a call anew, which would take as long as the rest of vmap's
// entry. Here CPython calls the engine without anything between them, and what stays the same for
// all calls is bound: a tuple, through which the garbage collector sees.
namespace functorch_ext {

// What is called with the bound objects, the positional arguments and the keyword arguments.
using BoundFunction = pybind11::object (*)(const pybind11::tuple& bound,
                                           const pybind11::tuple& args,
                                           const pybind11::dict& kwargs);

// What is bound at an index.
inline pybind11::handle bound_part(const pybind11::tuple& bound, Py_ssize_t index) {
  return PyTuple_GET_ITEM(bound.ptr(), index);
}

namespace detail {

template <BoundFunction function>
PyObject* call_bound(PyObject* bound, PyObject* const* arguments, Py_ssize_t count) {
  namespace py = pybind11;
  if (count != 2 || !PyTuple_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[1])) {
    PyErr_SetString(PyExc_TypeError, "expected a tuple of arguments and a dict of keywords");
    return nullptr;
  }
  try {
    return function(py::reinterpret_borrow<py::tuple>(bound),
                    py::reinterpret_borrow<py::tuple>(arguments[0]),
                    py::reinterpret_borrow<py::dict>(arguments[1]))
        .release()
        .ptr();
  } catch (const std::exception&) {
    torch::translate_exception_to_python(std::current_exception());
    return nullptr;
  }
}

}  // namespace detail

template <BoundFunction function>
pybind11::object bound_call(const pybind11::tuple& bound) {
  static PyMethodDef definition{
      "call",
      reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&detail::call_bound<function>)),
      METH_FASTCALL, nullptr};
  return pybind11::reinterpret_steal<pybind11::object>(
      PyCFunction_NewEx(&definition, bound.ptr(), nullptr));
}

}  // namespace functorch_ext
