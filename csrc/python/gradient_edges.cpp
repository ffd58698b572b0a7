#include "python/gradient_edges.h"

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/autograd/python_function.h>

#include "autodiff/graph.h"
#include "autodiff/plane.h"
#include "releases/nodes.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

using torch::autograd::AccumulateGrad;
using torch::autograd::Edge;
using torch::autograd::Node;

NodePtr<> node_of(const py::handle& object) {
  if (THPFunction_Check(object.ptr())) {
    return held_node(reinterpret_cast<THPFunction*>(object.ptr())->cdata);
  }
  TORCH_CHECK_TYPE(torch::autograd::THPCppFunction_Check(object.ptr()),
                   "torch.autograd: the node of a GradientEdge must be a node of autograd's graph, "
                   "such as x.grad_fn, but got a ",
                   Py_TYPE(object.ptr())->tp_name, ".");
  return held_node(reinterpret_cast<torch::autograd::THPCppFunction*>(object.ptr())->cdata);
}

// A graph is that of one plane, which its leaves tell.
LevelPtr plane_behind(const at::Tensor& tensor) {
  LevelPtr plane;
  any_node({tensor}, [&](Node* node) {
    const auto* leaf = dynamic_cast<AccumulateGrad*>(node);
    if (leaf) {
      plane = plane_of({leaf->variable});
    }
    return leaf != nullptr;
  });
  return plane;
}

}  // namespace

at::Tensor tensor_of_edge(const py::handle& object, uint32_t output) {
  auto node = node_of(object);
  TORCH_CHECK_VALUE(node && output < node->num_inputs(),
                    "torch.autograd: a GradientEdge names output ", output,
                    " of a node without such an output.");
  if (const auto* leaf = dynamic_cast<AccumulateGrad*>(node.get())) {
    return leaf->variable;
  }
  // The shape and the dtype that a cotangent has there, without memory of that size.
  const auto& metadata = node->input_metadata(output);
  const auto number = at::zeros({}, metadata.options());
  const auto with_edge = [&](const at::Tensor& tensor) {
    auto result = tensor.detach();
    torch::autograd::impl::set_gradient_edge(result, Edge(node, output));
    return result;
  };
  const auto plain = number.expand_symint(metadata.shape_as_dim_vector());
  const auto plane = plane_behind(with_edge(plain));
  return with_edge(plane ? lift_to(plain, plane) : plain);
}

}  // namespace functorch_ext
