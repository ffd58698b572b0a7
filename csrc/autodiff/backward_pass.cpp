#include "autodiff/backward_pass.h"

#include <ATen/ops/add.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <algorithm>

#include "autodiff/grad_mode.h"
#include "autodiff/graph.h"
#include "autodiff/plane.h"
#include "releases/nodes.h"

namespace functorch_ext {

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

void cut_graph(variable_list& gradients, const LevelPtr& plane) {
  for (auto& gradient : gradients) {
    if (gradient.defined()) {
      gradient = without_graph(gradient, plane);
    }
  }
}

// Does a derivative of another transform flow through the tensor: a tangent on this plane, or
// anything on a lower one?
bool is_differentiated_by_others(const at::Tensor& tensor, const LevelPtr& plane) {
  return tensor._fw_grad(0).defined() || (plane && is_differentiated_below(tensor, *plane));
}

// Is another transform's derivative to flow through the backward pass, and is there a formula that
// would let it only in grad mode?
bool others_need_grad_mode(const variable_list& outputs, const variable_list& seeds,
                           const LevelPtr& plane) {
  const auto is_differentiated = [&](const at::Tensor& tensor) {
    return tensor.defined() && is_differentiated_by_others(tensor, plane);
  };
  const bool flows = std::any_of(outputs.begin(), outputs.end(), is_differentiated) ||
                     std::any_of(seeds.begin(), seeds.end(), is_differentiated);
  return flows && any_node(outputs, [&](Node* node) {
           return may_depend_on_grad_mode(*node, /*tangents_alone=*/!plane);
         });
}

// A backward pass: grad mode and the running count are as its graph needs them.
class BackwardPass {
 public:
  BackwardPass(const LevelPtr& plane, bool with_grad_mode)
      : plane_(plane),
        without_graph_(plane && !with_grad_mode),
        differentiation_(plane, Direction::Reverse, c10::GradMode::is_enabled()) {
    if (without_graph_) {
      ++plane_->backward_without_graph;
    }
  }
  ~BackwardPass() {
    if (without_graph_) {
      --plane_->backward_without_graph;
    }
  }
  BackwardPass(const BackwardPass&) = delete;
  BackwardPass& operator=(const BackwardPass&) = delete;

 private:
  const LevelPtr& plane_;
  const bool without_graph_;
  const Differentiation differentiation_;
};

// Can `tensor` take the sum with `other` in place, or are there samples that differ in `other`
// only?
bool can_take_in_place(const at::Tensor& tensor, const at::Tensor& other) {
  if (!is_wrapper(other)) {
    return true;
  }
  const auto* wrapper = wrapper_of(other);
  return (!wrapper->is_batched() || is_batched_at(tensor, wrapper->level())) &&
         can_take_in_place(value_of(tensor, wrapper->level()), wrapper->value());
}

// Leaves without the gradients that they had before a pass, which are added when it is done, or
// put back if it fails. PyTorch would add in place to those that are there, which may be the same
// for all samples.
class EarlierGradients {
 public:
  explicit EarlierGradients(const std::vector<at::Tensor>& leaves) {
    for (const auto& leaf : leaves) {
      if (leaf.grad().defined()) {
        earlier_.emplace_back(leaf, std::exchange(leaf.mutable_grad(), at::Tensor()));
      }
    }
  }
  ~EarlierGradients() {
    for (auto& [leaf, gradient] : earlier_) {
      leaf.mutable_grad() = std::move(gradient);
    }
  }
  EarlierGradients(const EarlierGradients&) = delete;
  EarlierGradients& operator=(const EarlierGradients&) = delete;

  void add() {
    const c10::AutoGradMode without_grad(false);
    for (auto& [leaf, gradient] : earlier_) {
      const auto& found = leaf.grad();
      if (!found.defined()) {
        continue;
      }
      if (can_take_in_place(gradient, found)) {
        gradient.add_(found);
      } else {
        gradient = at::add(gradient, found);
      }
    }
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> earlier_;
};

// The end of a graph, behind all else that a thread has to run.
struct LastNode final : Node {
  LastNode() : Node(/*sequence_nr=*/0) {
    add_input_metadata(at::zeros({}));
  }
  variable_list apply(variable_list&&) override {
    return {};
  }
};

// Python's error, which the engine has set, kept from code that runs before it gets to Python: that
// would take it for its own.
class ErrorAside {
 public:
  ErrorAside() {
    const pybind11::gil_scoped_acquire gil;
    PyErr_Fetch(&type_, &value_, &traceback_);
  }
  ErrorAside(const ErrorAside&) = delete;
  ErrorAside& operator=(const ErrorAside&) = delete;
  ~ErrorAside() {
    const pybind11::gil_scoped_acquire gil;
    PyErr_Restore(type_, value_, traceback_);
  }

 private:
  PyObject* type_ = nullptr;
  PyObject* value_ = nullptr;
  PyObject* traceback_ = nullptr;
};

// Runs a backward pass. After an error PyTorch's queue holds what was still to run, and tensors of
// the transform with it, until the thread's next pass. So that follows at once.
template <class Run>
auto clearing_queue(const Run& run) {
  try {
    return run();
  } catch (...) {
    const ErrorAside error;
    // Dispatch modes, such as a tracer's, don't see what the program hasn't called.
    const c10::impl::ExcludeDispatchKeyGuard no_modes(
        c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
    const torch::autograd::edge_list roots = {{make_node<LastNode>(), 0}};
    torch::autograd::Engine::get_default_engine().execute(
        roots, {at::zeros({})}, /*keep_graph=*/false, /*create_graph=*/false,
        /*accumulate_grad=*/true);
    throw;
  }
}

// As gradients_of, but adds the gradients to the leaves' `grad`; to those of all if there are no
// `inputs`. Without `record` they are constants to reverse mode on the planes below as well.
void accumulate_gradients(const variable_list& outputs, const variable_list& seeds,
                          const std::vector<at::Tensor>& inputs, const LevelPtr& plane,
                          bool keep_graph, bool record) {
  if (record) {
    const BackwardPass pass(plane, /*with_grad_mode=*/true);
    clearing_queue([&] {
      torch::autograd::backward(outputs, seeds, keep_graph, /*create_graph=*/true, inputs);
    });
    return;
  }
  std::vector<at::Tensor> leaves = inputs;
  if (inputs.empty()) {
    any_node(outputs, [&](Node* node) {
      if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node)) {
        leaves.push_back(leaf->variable);
      }
      return false;
    });
  }
  EarlierGradients earlier(leaves);
  {
    const bool with_grad_mode = others_need_grad_mode(outputs, seeds, plane);
    const BackwardPass pass(plane, with_grad_mode);
    clearing_queue(
        [&] { torch::autograd::backward(outputs, seeds, keep_graph, with_grad_mode, inputs); });
  }
  for (const auto& leaf : leaves) {
    if (leaf.grad().defined()) {
      leaf.mutable_grad() = without_graph(leaf.grad(), /*plane=*/nullptr);
    }
  }
  earlier.add();
}

}  // namespace

variable_list gradients_of(const variable_list& outputs, const variable_list& seeds,
                           const std::vector<at::Tensor>& inputs, const LevelPtr& plane,
                           bool keep_graph, bool record, bool allow_unused) {
  const bool differentiable = record || others_need_grad_mode(outputs, seeds, plane);
  const BackwardPass pass(plane, differentiable);
  auto gradients = clearing_queue([&] {
    return torch::autograd::grad(outputs, inputs, seeds, keep_graph, differentiable, allow_unused);
  });
  if (differentiable && !record) {
    cut_graph(gradients, plane);
  }
  return gradients;
}

std::vector<at::Tensor> run_backward(const std::vector<at::Tensor>& outputs,
                                     const std::vector<std::optional<at::Tensor>>& cotangents,
                                     const std::vector<at::Tensor>& inputs, bool keep_graph,
                                     bool create_graph, bool allow_unused, bool accumulate) {
  const auto plane = plane_of(outputs);
  variable_list seeds;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const bool given = cotangents[i] && cotangents[i]->defined();
    seeds.push_back(given && on_plane(outputs[i], plane) ? lift_to(*cotangents[i], plane)
                                                         : cotangents[i].value_or(at::Tensor()));
  }
  if (accumulate) {
    accumulate_gradients(outputs, seeds, inputs, plane, keep_graph, create_graph);
    return {};
  }
  auto gradients =
      gradients_of(outputs, seeds, inputs, plane, keep_graph, create_graph, allow_unused);
  if (!create_graph) {
    cut_graph(gradients, /*plane=*/nullptr);
  }
  return gradients;
}

}  // namespace functorch_ext
