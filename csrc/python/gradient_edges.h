#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

namespace functorch_ext {

// A tensor that stands for a place in autograd's graph: an output of a node, given as Python sees
// it. It lies on the node's plane; the leaf itself is returned where the node is a leaf's.
at::Tensor tensor_of_edge(const pybind11::handle& node, uint32_t output);

}  // namespace functorch_ext
