#pragma once

#include <torch/csrc/autograd/function.h>

#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace functorch_ext {

// The node of a weight that one linear layer after another uses, as the steps of a sequence do. A
// gradient of the weight from each step and their sum would write and read the weights of all
// samples at each step. Instead the steps leave their cotangents and inputs here, and the gradient
// is one product of all.
class WeightOfSteps final : public torch::autograd::Node {
 public:
  using Node::Node;

  // Of one step, in the backward pass that runs on this thread: matrices of as many rows.
  void add(at::Tensor cotangents, at::Tensor inputs);

  std::string name() const override;
  void release_variables() override;
  torch::autograd::variable_list apply(torch::autograd::variable_list&& cotangents) override;

 private:
  struct Steps {
    std::vector<at::Tensor> cotangents;
    std::vector<at::Tensor> inputs;
  };

  std::mutex mutex_;
  std::unordered_map<int, Steps> passes_;  // by the backward pass: several may run at once
};

}  // namespace functorch_ext
