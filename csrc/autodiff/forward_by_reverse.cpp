#include "autodiff/forward_by_reverse.h"

#include <ATen/ops/_unpack_dual.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/ones_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "autodiff/backward_pass.h"
#include "autodiff/graph.h"
#include "autodiff/plane.h"
#include "autodiff/reevaluated.h"
#include "engine/below_all_levels.h"
#include "engine/layout.h"
#include "releases/nodes.h"

namespace functorch_ext {

namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

// Reverse mode on a plane, for as long as this lives.
class Recording {
 public:
  explicit Recording(const LevelPtr& plane)
      : differentiation_(plane, Direction::Reverse, outer_grad_mode_),
        grad_mode_(/*enabled=*/true) {}

  bool outer_grad_mode() const {
    return outer_grad_mode_;
  }

 private:
  const bool outer_grad_mode_ = c10::GradMode::is_enabled();
  const Differentiation differentiation_;
  const c10::AutoGradMode grad_mode_;
};

// Where a private graph begins. Not a leaf: nobody outside can ask for a gradient here, and a
// transform that looks for leaves of others must find none. So it has an edge, to nowhere.
class Beginning final : public Node {
 public:
  Beginning() {
    add_next_edge({});
  }
  std::string name() const override {
    return "functorch_ext::Beginning";
  }
  variable_list apply(variable_list&&) override {
    return variable_list(1);
  }
};

at::Tensor recorded_from(at::Tensor tensor) {
  torch::autograd::create_gradient_edge(tensor, make_node<Beginning>());
  return tensor;
}

// An input that autograd records from: linked to the caller's graph where somebody can use that.
at::Tensor private_alias(const at::Tensor& input, const LevelPtr& plane, bool linked) {
  return linked && input.requires_grad() ? at::alias(input)
                                         : recorded_from(without_graph(input, plane));
}

bool has_tangent_on(const at::Tensor& tensor, const LevelPtr& plane) {
  return tensor.defined() && on_plane(tensor, plane) && tensor._fw_grad(/*level=*/0).defined();
}

[[noreturn]] void raise_not_differentiable(const std::string& name, const std::string& why) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, "functorch_ext: a tangent flows into ", name,
      ", which has no derivative of forward mode (no jvp), and none can be made of its backward: ",
      why,
      "\nUse reverse mode (grad, vjp, jacrev), or detach the arguments if they need no "
      "derivative.");
}

// A gradient that doesn't depend on its cotangent must be zero. If not, a backward has left
// autograd on its way.
void check_zero(const at::Tensor& gradient) {
  const auto& plain = below_all_levels(gradient);
  if (!plain.has_storage() || plain.is_meta() || plain.key_set().has(c10::DispatchKey::Python) ||
      !plain.ne(0).any().item<bool>()) {
    return;
  }
  const auto* error = dynamic_cast<torch::autograd::Error*>(gradient.grad_fn().get());
  TORCH_CHECK_NOT_IMPLEMENTED(false, error ? error->msg : "it computes outside of autograd.");
}

using Nodes = std::unordered_set<Node*>;

Nodes nodes_of(const std::vector<at::Tensor>& tensors) {
  Nodes nodes;
  for (const auto& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) {
      nodes.insert(gradient_node(tensor));
    }
  }
  return nodes;
}

// Does the graph behind a tensor lead to one of `ends`, without passing through `bounds`?
bool leads_to(const at::Tensor& tensor, const Nodes& ends, const Nodes& bounds) {
  Nodes seen;
  std::vector<Node*> pending = {gradient_node(tensor)};
  while (!pending.empty()) {
    auto* node = pending.back();
    pending.pop_back();
    if (ends.count(node)) {
      return true;
    }
    if (!bounds.count(node) && seen.insert(node).second) {
      for (const auto& edge : node->next_edges()) {
        if (edge.function) {
          pending.push_back(edge.function.get());
        }
      }
    }
  }
  return false;
}

// The tangents of the outputs: undefined where an output doesn't depend on an input with a tangent.
std::vector<at::Tensor> tangents_of(const std::vector<at::Tensor>& outputs,
                                    const std::vector<at::Tensor>& arguments,
                                    const std::vector<at::Tensor>& sources,
                                    const std::vector<at::Tensor>& given, const LevelPtr& plane,
                                    bool record) {
  std::vector<at::Tensor> tangents(outputs.size());
  std::vector<size_t> positions;
  variable_list roots;
  variable_list cotangents;
  for (size_t k = 0; k < outputs.size(); ++k) {
    if (is_recorded_on(outputs[k], plane)) {
      TORCH_CHECK_NOT_IMPLEMENTED(
          is_strided(outputs[k]),
          "its result isn't strided, and only strided tensors have tangents.");
      positions.push_back(k);
      roots.push_back(outputs[k]);
      const c10::AutoGradMode constant(false);
      cotangents.push_back(recorded_from(at::ones_like(outputs[k])));
    }
  }
  if (roots.empty()) {
    return tangents;
  }
  const auto pulled = gradients_of(roots, cotangents, sources, plane, /*keep_graph=*/true,
                                   /*record=*/true, /*allow_unused=*/true);
  variable_list linear;
  variable_list seeds;
  const auto ends = nodes_of(cotangents);
  const auto bounds = nodes_of(arguments);
  for (size_t i = 0; i < pulled.size(); ++i) {
    if (is_recorded_on(pulled[i], plane) && leads_to(pulled[i], ends, bounds)) {
      linear.push_back(pulled[i]);
      seeds.push_back(lift_to(given[i], plane));
    } else if (pulled[i].defined()) {
      check_zero(pulled[i]);
    }
  }
  if (linear.empty()) {
    return tangents;
  }
  const auto found = gradients_of(linear, seeds, cotangents, plane, /*keep_graph=*/record, record,
                                  /*allow_unused=*/true);
  for (size_t k = 0; k < found.size(); ++k) {
    tangents[positions[k]] = found[k];
  }
  return tangents;
}

}  // namespace

bool is_recorded_on(const at::Tensor& tensor, const LevelPtr& plane) {
  return tensor.defined() && on_plane(tensor, plane) && tensor.requires_grad();
}

bool any_tangent_on(const std::vector<at::Tensor>& tensors, const LevelPtr& plane) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor& tensor) { return has_tangent_on(tensor, plane); });
}

std::vector<at::Tensor> pull_back(const TensorFunction& function,
                                  const std::vector<at::Tensor>& inputs,
                                  const std::vector<size_t>& wanted,
                                  const std::vector<at::Tensor>& cotangents,
                                  const std::vector<size_t>& given, const LevelPtr& plane) {
  const Recording recording(plane);
  const bool linked = recording.outer_grad_mode();
  auto arguments = inputs;
  std::vector<at::Tensor> sources;
  for (const auto i : wanted) {
    arguments[i] = private_alias(inputs[i], plane, linked);
    sources.push_back(arguments[i]);
  }
  const auto outputs = function(arguments);
  variable_list roots;
  variable_list seeds;
  for (size_t k = 0; k < given.size(); ++k) {
    if (is_recorded_on(outputs[given[k]], plane)) {
      roots.push_back(outputs[given[k]]);
      seeds.push_back(lift_to(cotangents[k], plane));
    }
  }
  if (roots.empty()) {
    return std::vector<at::Tensor>(wanted.size());
  }
  return gradients_of(roots, seeds, sources, plane, /*keep_graph=*/linked, /*record=*/linked,
                      /*allow_unused=*/true);
}

std::vector<at::Tensor> push_forward_by_reverse(const TensorFunction& function,
                                                const std::vector<at::Tensor>& inputs,
                                                const LevelPtr& plane, const std::string& name) {
  bool is_recorded = false;  // does reverse mode of somebody else follow the results?
  bool records_tangents = false;
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> tangents;
  {
    const Recording recording(plane);
    const bool linked = recording.outer_grad_mode();
    auto arguments = inputs;
    std::vector<at::Tensor> sources;
    std::vector<at::Tensor> given;
    for (auto& argument : arguments) {
      is_recorded = is_recorded || (linked && is_recorded_on(argument, plane));
      if (has_tangent_on(argument, plane)) {
        const auto [primal, tangent] = at::_unpack_dual(argument, /*level=*/0);
        records_tangents = records_tangents || (linked && tangent.requires_grad());
        argument = private_alias(primal, plane, linked);
        sources.push_back(argument);
        given.push_back(tangent);
      } else if (!linked && is_recorded_on(argument, plane)) {
        argument = without_graph(argument, plane);
      }
    }
    outputs = function(arguments);
    try {
      tangents =
          tangents_of(outputs, arguments, sources, given, plane, is_recorded || records_tangents);
    } catch (const c10::Error& error) {
      raise_not_differentiable(name, error.what_without_backtrace());
    } catch (const std::exception& error) {
      raise_not_differentiable(name, error.what());
    }
  }
  NodePtr<Reevaluated> node;
  if (is_recorded) {
    node = make_node<Reevaluated>(function, inputs, plane, name);
  }
  std::vector<size_t> differentiable;
  for (size_t k = 0; k < outputs.size(); ++k) {
    if (!is_recorded_on(outputs[k], plane)) {
      continue;
    }
    outputs[k] = without_graph(outputs[k], plane);
    if (node) {
      torch::autograd::set_history(outputs[k], node);
      differentiable.push_back(k);
    }
    if (tangents[k].defined()) {
      outputs[k]._set_fw_grad(tangents[k], /*level=*/0, /*is_inplace_op=*/false);
    }
  }
  if (node) {
    node->set_outputs(std::move(differentiable));
  }
  return outputs;
}

}  // namespace functorch_ext
