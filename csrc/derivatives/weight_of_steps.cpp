#include "derivatives/weight_of_steps.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/graph_task.h>

#include "derivatives/linear.h"
#include "engine/derivatives.h"
#include "engine/wrapper.h"
#include "releases/nodes.h"

namespace functorch_ext {

void WeightOfSteps::add(at::Tensor cotangents, at::Tensor inputs) {
  const std::lock_guard lock(mutex_);
  auto& steps = passes_[torch::autograd::get_current_graph_task_id()];
  steps.cotangents.push_back(std::move(cotangents));
  steps.inputs.push_back(std::move(inputs));
}

std::string WeightOfSteps::name() const {
  return "functorch_ext::WeightOfSteps";
}

void WeightOfSteps::release_variables() {
  const std::lock_guard lock(mutex_);
  passes_.erase(torch::autograd::get_current_graph_task_id());
}

torch::autograd::variable_list WeightOfSteps::apply(torch::autograd::variable_list&& cotangents) {
  Steps steps;
  {
    const std::lock_guard lock(mutex_);
    if (auto pass = passes_.extract(torch::autograd::get_current_graph_task_id())) {
      steps = std::move(pass.mapped());
    }
  }
  auto& gradient = cotangents[0];  // of uses that aren't a linear layer's
  if (!steps.inputs.empty()) {
    const auto product = at::mm(at::cat(steps.cotangents).mT(), at::cat(steps.inputs));
    gradient = gradient.defined() ? gradient + product : product;
  }
  return {gradient};
}

at::Tensor weight_of_steps(const at::Tensor& weight) {
  if (!is_wrapper(weight) || !any_differentiated(weight) || any_tangent(weight)) {
    return weight;
  }
  auto* impl = weight.unsafeGetTensorImpl();
  at::Tensor alias(impl->shallow_copy_and_detach(impl->version_counter(),
                                                 /*allow_tensor_metadata_change=*/true));
  torch::autograd::set_history(
      alias, make_node<WeightOfSteps>(torch::autograd::collect_next_edges(weight)));
  return alias;
}

}  // namespace functorch_ext
