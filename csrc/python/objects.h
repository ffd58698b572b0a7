#pragma once

#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>

#include <vector>

namespace functorch_ext {

inline pybind11::object python_tensor(const at::Tensor& tensor) {
  return pybind11::reinterpret_steal<pybind11::object>(THPVariable_Wrap(tensor));
}

// The tensors among the arguments of a Python function.
inline std::vector<at::Tensor> tensors_in(const pybind11::tuple& arguments) {
  std::vector<at::Tensor> tensors;
  for (const auto& argument : arguments) {
    if (THPVariable_Check(argument.ptr())) {
      tensors.push_back(THPVariable_Unpack(argument.ptr()));
    }
  }
  return tensors;
}

// func(*args, **kwargs), without copies of the two.
inline pybind11::object called(const pybind11::handle& func, const pybind11::tuple& args,
                               const pybind11::dict& kwargs) {
  auto result = pybind11::reinterpret_steal<pybind11::object>(
      PyObject_Call(func.ptr(), args.ptr(), kwargs.empty() ? nullptr : kwargs.ptr()));
  if (!result) {
    throw pybind11::error_already_set();
  }
  return result;
}

}  // namespace functorch_ext
