// Python's functions of tensors, pushed forward by reverse mode.
#include "python/functions.h"

#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>
#include <string>
#include <vector>

#include "autodiff/forward_by_reverse.h"
#include "autodiff/plane.h"
#include "engine/derivatives.h"
#include "python/objects.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// Does a tangent flow into a function of these arguments, on the deepest plane among them?
bool tangent_flows(const py::tuple& arguments) {
  if (!is_differentiating() || torch_func_is_innermost()) {
    return false;
  }
  const auto tensors = tensors_in(arguments);
  const auto plane = plane_of(tensors);
  return (!plane || plane->is_running()) && any_tangent_on(tensors, plane);
}

// A Python function as one of C++, which may be called and destroyed without the GIL.
TensorFunction callable(const py::object& function) {
  const std::shared_ptr<py::object> shared(new py::object(function), [](py::object* object) {
    if (Py_IsInitialized()) {
      const py::gil_scoped_acquire gil;
      delete object;
    }
  });
  return [shared](const std::vector<at::Tensor>& tensors) {
    const py::gil_scoped_acquire gil;
    try {
      return (*shared)(tensors).cast<std::vector<at::Tensor>>();
    } catch (py::error_already_set& error) {
      // As autograd's engine knows errors of Python.
      error.restore();
      python_error persistent;
      persistent.persist();
      throw persistent;
    }
  };
}

std::vector<at::Tensor> push_forward(const py::object& function,
                                     const std::vector<at::Tensor>& tensors,
                                     const std::string& name) {
  const auto called = callable(function);
  const py::gil_scoped_release no_gil;
  return push_forward_by_reverse(called, tensors, plane_of(tensors), name);
}

}  // namespace

void bind_python_functions(py::module_& module) {
  module.def("tangent_flows", &tangent_flows);
  module.def("push_forward_by_reverse", &push_forward);
}

}  // namespace functorch_ext
