#pragma once

#include <torch/csrc/autograd/functions/accumulate_grad.h>

#include <atomic>
#include <string>

namespace functorch_ext {

class ReverseFrame;

// Orders the beginnings of reverse-mode and forward-mode transforms.
inline std::atomic<uint64_t> transforms_begun{0};

// The leaf of autograd's graph for an alias that a reverse-mode transform hands to its function.
// Once the transform has returned, nobody can ask for a gradient there.
struct PrivateLeaf final : torch::autograd::AccumulateGrad {
  PrivateLeaf(at::Tensor alias, const ReverseFrame* frame_)
      : AccumulateGrad(std::move(alias)), frame(frame_) {}

  // To the outside it is what any leaf has.
  std::string name() const override {
    return "torch::autograd::AccumulateGrad";
  }

  const ReverseFrame* const frame;  // only to compare: the frame may be gone
  const uint64_t begun = ++transforms_begun;
  std::atomic<bool> running{true};  // the transform has not returned yet
};

// Gives private leaves the Python class of other leaves.
void register_private_leaf();

}  // namespace functorch_ext
