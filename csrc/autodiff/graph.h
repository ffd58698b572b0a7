#pragma once

#include <c10/util/flat_hash_map.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <vector>

#include "engine/level.h"

// Autograd's graph behind tensors.
namespace functorch_ext {

// The node that a backward pass from this tensor starts at; null if it needs no gradient.
inline torch::autograd::Node* gradient_node(const at::Tensor& tensor) {
  return tensor.requires_grad() ? torch::autograd::impl::gradient_edge(tensor).function.get()
                                : nullptr;
}

// Visits the nodes of the graph behind `outputs` until `stop(node)` holds; tells whether it did.
template <class Stop>
bool any_node(const std::vector<at::Tensor>& outputs, Stop&& stop) {
  using torch::autograd::Node;
  ska::flat_hash_set<Node*> seen;
  seen.reserve(32);  // most graphs are small: growing step by step takes longer than the visit
  std::vector<Node*> pending;
  const auto reach = [&](Node* node) {
    if (node && seen.insert(node).second) {
      pending.push_back(node);
    }
  };
  for (const auto& output : outputs) {
    reach(gradient_node(output));
  }
  while (!pending.empty()) {
    Node* node = pending.back();
    pending.pop_back();
    if (stop(node)) {
      return true;
    }
    for (const auto& edge : node->next_edges()) {
      reach(edge.function.get());
    }
  }
  return false;
}

// The tensor cut off from the graphs of a plane (null: plane 0) and of all deeper ones; those below
// go on, and the tangent goes along, cut off or with its graph. (detach cuts on all planes, and
// takes tangents off.)
enum class Tangents { Cut, Keep };
at::Tensor without_graph(const at::Tensor& tensor, const LevelPtr& plane,
                         Tangents tangents = Tangents::Cut);

}  // namespace functorch_ext
