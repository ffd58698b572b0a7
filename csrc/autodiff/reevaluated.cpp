#include "autodiff/reevaluated.h"

#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <numeric>
#include <utility>

#include "autodiff/layers.h"
#include "autodiff/plane.h"

namespace functorch_ext {

Reevaluated::Reevaluated(TensorFunction function, const std::vector<at::Tensor>& inputs,
                         LevelPtr plane, std::string function_name)
    : function_(std::move(function)),
      plane_(std::move(plane)),
      function_name_(std::move(function_name)) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs_.emplace_back(inputs[i], /*is_output=*/false);
    if (is_recorded_on(inputs[i], plane_)) {
      recorded_.push_back(i);
      add_next_edge(torch::autograd::impl::gradient_edge(inputs[i]));
    }
  }
}

void Reevaluated::release_variables() {
  const std::lock_guard lock(mutex_);
  for (auto& input : inputs_) {
    input.reset_data();
  }
}

torch::autograd::variable_list Reevaluated::apply(torch::autograd::variable_list&& cotangents) {
  std::vector<at::Tensor> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& input : inputs_) {
      all.push_back(input.unpack());
    }
  }
  const auto input_count = all.size();
  std::vector<size_t> given;
  std::vector<Layers> layers;
  for (size_t k = 0; k < cotangents.size(); ++k) {
    if (cotangents[k].defined()) {
      given.push_back(outputs_[k]);
      all.push_back(layers.emplace_back().peel(cotangents[k], plane_));
    }
  }
  if (given.empty()) {
    return torch::autograd::variable_list(recorded_.size());
  }
  const OnPlane on_plane(all);
  // The pullback as a function of the inputs and the cotangents, all of this plane. It may be
  // called again in another backward pass, when a basis among the layers is gone.
  const auto found = std::make_shared<std::vector<Layers>>();
  const TensorFunction pullback =
      [function = function_, plane = plane_, recorded = recorded_, given, layers, input_count,
       found = std::weak_ptr(found)](const std::vector<at::Tensor>& tensors) {
        const FreshLevels levels(layers);
        const auto middle = tensors.begin() + static_cast<int64_t>(input_count);
        std::vector<at::Tensor> cotangents(middle, tensors.end());
        for (size_t k = 0; k < cotangents.size(); ++k) {
          cotangents[k] = layers[k].restore(cotangents[k], &levels);
        }
        auto gradients =
            pull_back(function, {tensors.begin(), middle}, recorded, cotangents, given, plane);
        std::vector<Layers> layers_of_gradients(gradients.size());
        for (size_t i = 0; i < gradients.size(); ++i) {
          gradients[i] = layers_of_gradients[i].peel(gradients[i], plane);
        }
        if (const auto first = found.lock()) {
          *first = std::move(layers_of_gradients);
        }
        return gradients;
      };
  auto gradients =
      any_tangent_on(all, plane_)
          ? push_forward_by_reverse(pullback, all, plane_, "the backward of " + function_name_)
          : pullback(all);
  for (size_t i = 0; i < gradients.size(); ++i) {
    gradients[i] = (*found)[i].restore(std::move(gradients[i]));
  }
  return gradients;
}

std::vector<at::Tensor> reevaluated_gradients(const TensorFunction& function,
                                              const std::vector<at::Tensor>& inputs,
                                              std::vector<at::Tensor> cotangents,
                                              const LevelPtr& plane, const std::string& name) {
  Reevaluated node(function, inputs, plane, name);
  std::vector<size_t> outputs(cotangents.size());
  std::iota(outputs.begin(), outputs.end(), 0);
  node.set_outputs(std::move(outputs));
  auto found = node.apply(std::move(cotangents));
  std::vector<at::Tensor> gradients(inputs.size());
  for (size_t i = 0; i < found.size(); ++i) {
    gradients[node.recorded()[i]] = std::move(found[i]);
  }
  return gradients;
}

}  // namespace functorch_ext
