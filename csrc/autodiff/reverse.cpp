#include "autodiff/reverse.h"

#include <ATen/ops/alias.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "autodiff/backward_pass.h"
#include "autodiff/basis.h"
#include "autodiff/graph.h"
#include "autodiff/private_leaf.h"
#include "autodiff/subclasses.h"
#include "engine/frames.h"
#include "engine/torch_func.h"

namespace functorch_ext {

using torch::autograd::Node;

namespace {

// Goes back to a level that stands for its values and has ended, for as long as this lives.
class Again {
 public:
  explicit Again(const LevelPtr& level)
      : level_(level && level->stands_for_values() && !level->is_running() ? level.get()
                                                                           : nullptr) {
    if (level_) {
      ++level_->runners;
    }
  }
  ~Again() {
    if (level_) {
      --level_->runners;
    }
  }
  Again(const Again&) = delete;
  Again& operator=(const Again&) = delete;

  // A result as it is after: without the level.
  at::Tensor outside(const at::Tensor& tensor) const {
    return level_ ? without_level(tensor, *level_) : tensor;
  }

 private:
  Level* const level_;
};

}  // namespace

ReverseFrame::ReverseFrame()
    : outer_grad_mode_(c10::GradMode::is_enabled() && allowed_->was_allowed()) {
  if (C10_UNLIKELY(torch_func_is_innermost())) {
    pushed_.emplace(level_of_values(), /*is_plane=*/true);
    keep_depth((*pushed_)->depth);
  }
  plane_ = thread_state().plane;
  differentiation_.emplace(plane_, Direction::Reverse, outer_grad_mode_);
  grad_mode_.emplace(true);
}

ReverseFrame::~ReverseFrame() {
  exit();
}

void ReverseFrame::exit() {
  if (running_) {
    running_ = false;
    for (const auto& leaf : leaves_) {
      leaf->running = false;
    }
    grad_mode_.reset();
    differentiation_.reset();
    on_plane_.reset();
    if (pushed_) {
      pushed_->exit();
    }
    allowed_.reset();
  }
}

at::Tensor ReverseFrame::strip(const at::Tensor& tensor) const {
  return pushed_ ? without_level(tensor, **pushed_) : tensor;
}

void ReverseFrame::enter_plane_of(const std::vector<at::Tensor>& inputs) {
  on_plane_.emplace(inputs);
  if (thread_state().plane != plane_) {
    plane_ = thread_state().plane;
    differentiation_.emplace(plane_, Direction::Reverse, outer_grad_mode_);
  }
}

std::vector<at::Tensor> ReverseFrame::differentiable(const std::vector<at::Tensor>& inputs) {
  TORCH_CHECK(running_, "functorch_ext.vjp: a frame was used after the transform had ended");
  enter_plane_of(inputs);
  std::vector<at::Tensor> aliases;
  aliases.reserve(inputs.size());
  for (const auto& input : inputs) {
    const auto lifted = lift_to(normal_tensor(input), plane_);
    at::Tensor alias;
    if (lifted.requires_grad() && outer_grad_mode_) {
      alias = at::alias(lifted);
      connected_ = true;
    } else {
      alias = without_graph(lifted, plane_, Tangents::Keep);
      alias.set_requires_grad(true);
      auto leaf = make_node<PrivateLeaf>(alias, this);
      torch::autograd::impl::set_grad_accumulator(alias, WeakNodePtr<>(NodePtr<>(leaf)));
      leaves_.push_back(std::move(leaf));
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
  // Tangents have graphs of their own, which derivatives of these outputs lead to.
  auto roots = outputs;
  for (const auto& output : outputs) {
    if (const auto& tangent = output._fw_grad(/*level=*/0); tangent.defined()) {
      roots.push_back(value_on(tangent, plane_));
    }
  }
  return any_node(roots, [&](Node* node) {
    if (node->num_outputs() > 0) {
      return false;
    }
    const auto* leaf = dynamic_cast<const PrivateLeaf*>(node);
    return !leaf || (leaf->running && leaf->frame != this);
  });
}

at::Tensor ReverseFrame::release(const at::Tensor& output) const {
  if (!output.requires_grad() || !on_plane(output, plane_) || graph_is_used({output})) {
    return strip(output);
  }
  return strip(without_graph(output, plane_));
}

bool ReverseFrame::depends_on_inputs(const at::Tensor& tensor) const {
  return any_node({tensor}, [&](Node* node) {
    return std::any_of(inputs_.begin(), inputs_.end(),
                       [&](const at::Tensor& input) { return gradient_node(input) == node; });
  });
}

// The inputs are tensors of this plane, of which autograd of a deeper one knows nothing.
void ReverseFrame::check_within_reach(const at::Tensor& output) const {
  const auto value = value_on(output, plane_);
  TORCH_CHECK(
      value.is_same(output) || !depends_on_inputs(value),
      "functorch_ext: a function that is differentiated in a backward pass, a hook or a thread "
      "returned a tensor of a vmap (or of a Jacobian's rows), but none of the arguments to "
      "differentiate by is one. It closes over such a tensor: pass that as an argument too (with "
      "argnums=(0, 1), say).");
}

namespace {

// Frees what the graph behind the tangents of outputs saved, apart from that of the outputs
// themselves. A pass from the outputs doesn't come through it; and a node that saved its result (as
// that of tanh does) and the tangent of this result hold each other.
void free_graph_of_tangents(const std::vector<at::Tensor>& outputs, const LevelPtr& plane) {
  std::vector<at::Tensor> tangents;
  for (const auto& output : outputs) {
    if (const auto& tangent = output._fw_grad(/*level=*/0); tangent.defined()) {
      tangents.push_back(value_on(tangent, plane));
    }
  }
  if (tangents.empty()) {
    return;
  }
  ska::flat_hash_set<Node*> own;
  any_node(outputs, [&](Node* node) {
    own.insert(node);
    return false;
  });
  any_node(tangents, [&](Node* node) {
    if (own.count(node) == 0) {
      node->release_variables();
    }
    return false;
  });
}

// The cotangent of a number.
at::Tensor seed_of(const at::Tensor& output) {
  if (const auto* makers = subclass_makers_for(output)) {
    if (auto made = makers->seed(output)) {
      return *std::move(made);
    }
  }
  return at::ones({}, output.options());
}

}  // namespace

std::vector<at::Tensor> ReverseFrame::pull_back(
    const std::vector<at::Tensor>& outputs,
    const std::vector<std::optional<at::Tensor>>& cotangents, bool keep_graph) const {
  const Again again(plane_);
  torch::autograd::variable_list roots;
  torch::autograd::variable_list seeds;
  bool record = false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!on_plane(outputs[i], plane_)) {
      check_within_reach(outputs[i]);
      continue;
    }
    // A view taken without grad mode says that it requires grad, and has no node.
    if (!gradient_node(outputs[i])) {
      continue;
    }
    roots.push_back(outputs[i]);
    const auto seed = cotangents[i] ? *cotangents[i] : seed_of(outputs[i]);
    record = record || seed.requires_grad();
    seeds.push_back(lift_to(seed, plane_));
  }
  std::vector<at::Tensor> gradients(inputs_.size());
  if (!roots.empty()) {
    if (c10::GradMode::is_enabled()) {
      record = record || graph_is_used(roots);
      if (!record && !keep_graph) {
        free_graph_of_tangents(roots, plane_);
      }
    } else {
      record = false;
    }
    gradients = gradients_of(roots, seeds, inputs_, plane_, keep_graph || record, record,
                             /*allow_unused=*/true);
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined()) {
      const c10::AutoGradMode constant(false);
      gradients[i] = at::zeros_like(inputs_[i]);
    }
    gradients[i] = again.outside(gradients[i]);
  }
  return gradients;
}

std::vector<at::Tensor> ReverseFrame::pull_back_basis(const std::vector<at::Tensor>& outputs,
                                                      const c10::SymInt& start,
                                                      const c10::SymInt& count,
                                                      bool keep_graph) const {
  const BatchFrame vectors(count, Randomness::Same, /*is_plane=*/false);
  // What the program runs in the pass (hooks, backwards of custom functions) gets such vectors.
  const OnPlane on_basis(vectors.level());
  std::vector<std::optional<at::Tensor>> cotangents;
  cotangents.reserve(outputs.size());
  for (const auto& part : standard_basis(outputs, start, count)) {
    cotangents.emplace_back(wrap(part, 0, *vectors.level()));
  }
  auto rows = pull_back(outputs, cotangents, keep_graph);
  for (auto& row : rows) {
    row = stacked(row, 0, *vectors.level());
  }
  return rows;
}

}  // namespace functorch_ext
