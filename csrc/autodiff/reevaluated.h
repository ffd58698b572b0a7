#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <string>
#include <vector>

#include "autodiff/forward_by_reverse.h"

namespace functorch_ext {

// The node of results whose tangents came by reverse mode. PyTorch's own node would have saved the
// inputs without their tangents, and a tangent that flows through the backward pass would be lost.
// So this one saves the inputs as they are and evaluates the pullback anew.
class Reevaluated final : public torch::autograd::Node {
 public:
  // `function_name` is what the function is called where its backward can't be differentiated.
  Reevaluated(TensorFunction function, const std::vector<at::Tensor>& inputs, LevelPtr plane,
              std::string function_name);

  std::string name() const override {
    return "functorch_ext::Reevaluated";
  }

  const std::vector<size_t>& recorded() const {
    return recorded_;
  }

  // The outputs that have a cotangent each, in the order of the node's own.
  void set_outputs(std::vector<size_t> outputs) {
    outputs_ = std::move(outputs);
  }

  void release_variables() override;
  torch::autograd::variable_list apply(torch::autograd::variable_list&& cotangents) override;

 private:
  const TensorFunction function_;
  const LevelPtr plane_;
  const std::string function_name_;
  std::vector<torch::autograd::SavedVariable> inputs_;
  std::vector<size_t> recorded_;  // which inputs have a gradient
  std::vector<size_t> outputs_;
};

}  // namespace functorch_ext
