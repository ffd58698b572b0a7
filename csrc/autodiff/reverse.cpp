#include "autodiff/reverse.h"

#include <ATen/ops/_make_dual.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <c10/util/flat_hash_map.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "autodiff/basis.h"
#include "autodiff/grad_mode.h"
#include "autodiff/plane.h"
#include "engine/frames.h"

namespace functorch_ext {

namespace {

using torch::autograd::Node;

// The node that a backward pass from this tensor starts at; null if it needs no gradient.
Node* gradient_node(const at::Tensor& tensor) {
  return tensor.requires_grad() ? torch::autograd::impl::gradient_edge(tensor).function.get()
                                : nullptr;
}

// Visits the nodes of the graph behind `outputs` until `stop(node)` holds; tells whether it did.
template <class Stop>
bool any_node(const std::vector<at::Tensor>& outputs, Stop&& stop) {
  ska::flat_hash_set<Node*> seen;
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
// go on, and so do tangents. (detach cuts on all planes, and tangents as well.)
at::Tensor without_graph(const at::Tensor& tensor, const LevelPtr& plane) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  at::Tensor result;
  if (depth_of(tensor) > (plane ? plane->depth : 0)) {
    const auto* wrapper = wrapper_of(tensor);
    result = wrap(without_graph(wrapper->value(), plane), wrapper->bdim(), wrapper->level());
  } else {
    result = at::Tensor(impl->shallow_copy_and_detach(impl->version_counter(),
                                                      /*allow_tensor_metadata_change=*/true));
  }
  const auto& tangent = tensor._fw_grad(0);
  return tangent.defined() ? at::_make_dual(result, without_graph(tangent, plane), 0) : result;
}

void cut_graph(torch::autograd::variable_list& gradients, const LevelPtr& plane) {
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
bool others_need_grad_mode(const torch::autograd::variable_list& outputs,
                           const torch::autograd::variable_list& seeds, const LevelPtr& plane) {
  const auto is_differentiated = [&](const at::Tensor& tensor) {
    return tensor.defined() && is_differentiated_by_others(tensor, plane);
  };
  const bool flows = std::any_of(outputs.begin(), outputs.end(), is_differentiated) ||
                     std::any_of(seeds.begin(), seeds.end(), is_differentiated);
  return flows && any_node(outputs, [](Node* node) { return may_depend_on_grad_mode(*node); });
}

// A backward pass: grad mode and the running count are as its graph needs them.
class BackwardPass {
 public:
  BackwardPass(const LevelPtr& plane, bool with_grad_mode) : plane_(plane) {
    begin_differentiation(plane_, Direction::Reverse, c10::GradMode::is_enabled());
    without_graph_ = plane_ && !with_grad_mode;
    if (without_graph_) {
      ++plane_->backward_without_graph;
    }
  }
  ~BackwardPass() {
    if (without_graph_) {
      --plane_->backward_without_graph;
    }
    end_differentiation(plane_, Direction::Reverse);
  }
  BackwardPass(const BackwardPass&) = delete;
  BackwardPass& operator=(const BackwardPass&) = delete;

 private:
  const LevelPtr& plane_;
  bool without_graph_;
};

// The gradients of a backward pass on the plane, with a graph if asked to `record` one.
//
// In grad mode PyTorch's formulas take the form that can be differentiated again; without it they
// may take a faster one that drops derivatives without a word (as that of the determinant does).
// So grad mode is on, too, where another transform's derivative is to flow through the pass.
torch::autograd::variable_list gradients_of(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list& seeds,
                                            const std::vector<at::Tensor>& inputs,
                                            const LevelPtr& plane, bool keep_graph, bool record,
                                            bool allow_unused) {
  const bool differentiable = record || others_need_grad_mode(outputs, seeds, plane);
  const BackwardPass pass(plane, differentiable);
  auto gradients =
      torch::autograd::grad(outputs, inputs, seeds, keep_graph, differentiable, allow_unused);
  if (differentiable && !record) {
    cut_graph(gradients, plane);
  }
  return gradients;
}

// As gradients_of, but adds the gradients to the leaves' `grad`; to those of all if there are no
// `inputs`. Without `record` they are constants to reverse mode on the planes below as well.
void accumulate_gradients(const torch::autograd::variable_list& outputs,
                          const torch::autograd::variable_list& seeds,
                          const std::vector<at::Tensor>& inputs, const LevelPtr& plane,
                          bool keep_graph, bool record) {
  const bool differentiable = record || others_need_grad_mode(outputs, seeds, plane);
  std::vector<at::Tensor> leaves = inputs;
  if (!record && inputs.empty()) {
    any_node(outputs, [&](Node* node) {
      if (const auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(node)) {
        leaves.push_back(leaf->variable);
      }
      return false;
    });
  }
  const BackwardPass pass(plane, differentiable);
  torch::autograd::backward(outputs, seeds, keep_graph, differentiable, inputs);
  if (!record) {
    for (const auto& leaf : leaves) {
      if (leaf.grad().defined()) {
        leaf.mutable_grad() = without_graph(leaf.grad(), /*plane=*/nullptr);
      }
    }
  }
}

}  // namespace

ReverseFrame::ReverseFrame()
    : plane_(thread_state().plane), outer_grad_mode_(c10::GradMode::is_enabled()) {
  leave_inference_mode(normal_mode_);
  begin_differentiation(plane_, Direction::Reverse, outer_grad_mode_);
  c10::GradMode::set_enabled(true);
}

ReverseFrame::~ReverseFrame() {
  exit();
}

void ReverseFrame::exit() {
  if (running_) {
    running_ = false;
    normal_mode_.reset();
    c10::GradMode::set_enabled(outer_grad_mode_);
    end_differentiation(plane_, Direction::Reverse);
  }
}

std::vector<at::Tensor> ReverseFrame::differentiable(const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> aliases;
  aliases.reserve(inputs.size());
  for (const auto& input : inputs) {
    const auto lifted = lift_to(normal_tensor(input), plane_);
    at::Tensor alias;
    if (lifted.requires_grad() && outer_grad_mode_) {
      alias = at::alias(lifted);
      connected_ = true;
    } else {
      alias = without_graph(lifted, plane_);
      alias.set_requires_grad(true);
    }
    aliases.push_back(alias);
    inputs_.push_back(std::move(alias));
  }
  return aliases;
}

bool ReverseFrame::graph_is_used(const std::vector<at::Tensor>& outputs) const {
  if (!outer_grad_mode_) {
    return false;
  }
  if (connected_) {
    return true;
  }
  ska::flat_hash_set<Node*> private_leaves;
  for (const auto* inputs : {&inputs_, &also_private_}) {
    for (const auto& input : *inputs) {
      private_leaves.insert(gradient_node(input));
    }
  }
  return any_node(
      outputs, [&](Node* node) { return node->num_outputs() == 0 && !private_leaves.count(node); });
}

void ReverseFrame::share_privacy(const ReverseFrame& other) {
  connected_ = connected_ || other.connected_;
  also_private_.insert(also_private_.end(), other.inputs_.begin(), other.inputs_.end());
}

at::Tensor ReverseFrame::release(const at::Tensor& output) const {
  if (!output.requires_grad() || !on_plane(output, plane_) || graph_is_used({output})) {
    return output;
  }
  return without_graph(output, plane_);
}

std::vector<at::Tensor> ReverseFrame::pull_back(
    const std::vector<at::Tensor>& outputs,
    const std::vector<std::optional<at::Tensor>>& cotangents, bool keep_graph) const {
  torch::autograd::variable_list roots;
  torch::autograd::variable_list seeds;
  bool record = false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad() || !on_plane(outputs[i], plane_)) {
      continue;
    }
    roots.push_back(outputs[i]);
    const auto seed = cotangents[i] ? *cotangents[i] : at::ones({}, outputs[i].options());
    record = record || seed.requires_grad();
    seeds.push_back(lift_to(seed, plane_));
  }
  std::vector<at::Tensor> gradients(inputs_.size());
  if (!roots.empty()) {
    record = c10::GradMode::is_enabled() && (record || graph_is_used(roots));
    gradients = gradients_of(roots, seeds, inputs_, plane_, keep_graph || record, record,
                             /*allow_unused=*/true);
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined()) {
      const c10::AutoGradMode constant(false);
      gradients[i] = at::zeros_like(inputs_[i]);
    }
  }
  return gradients;
}

std::vector<at::Tensor> ReverseFrame::pull_back_basis(const std::vector<at::Tensor>& outputs,
                                                      int64_t start, int64_t count) const {
  const BatchFrame vectors(count, Randomness::Same, /*is_plane=*/false);
  std::vector<std::optional<at::Tensor>> cotangents;
  cotangents.reserve(outputs.size());
  for (const auto& part : standard_basis(outputs, start, count)) {
    cotangents.emplace_back(vectors.wrap(part, 0));
  }
  auto rows = pull_back(outputs, cotangents, /*keep_graph=*/true);
  for (auto& row : rows) {
    row = vectors.unwrap(row, 0);
  }
  return rows;
}

std::vector<at::Tensor> run_backward(const std::vector<at::Tensor>& outputs,
                                     const std::vector<std::optional<at::Tensor>>& cotangents,
                                     const std::vector<at::Tensor>& inputs, bool keep_graph,
                                     bool create_graph, bool allow_unused, bool accumulate) {
  LevelPtr plane;
  for (const auto& output : outputs) {
    if (depth_of(output) > (plane ? plane->depth : 0)) {
      plane = wrapper_of(output)->level_ptr();
    }
  }
  torch::autograd::variable_list seeds;
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
