#include "autodiff/private_leaf.h"

#include <ATen/ops/zeros.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_cpp_function.h>

namespace functorch_ext {

void register_private_leaf() {
  const auto tensor = at::zeros({}).set_requires_grad(true);
  const auto leaf = pybind11::reinterpret_steal<pybind11::object>(
      torch::autograd::functionToPyObject(torch::autograd::impl::grad_accumulator(tensor)));
  torch::autograd::registerCppFunction(typeid(PrivateLeaf), Py_TYPE(leaf.ptr()));
}

}  // namespace functorch_ext
