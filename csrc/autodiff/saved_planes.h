#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <memory>
#include <vector>

#include "engine/level.h"

namespace functorch_ext {

// What a tensor of a level, which a hook packs, is to the planes below its own: which levels it
// belongs to, and what is differentiated there. What the hook unpacks brings numbers alone: it may
// have been detached, or computed again in transforms of its own that have returned. (PyTorch does
// the same for the plane that saves the tensor.)
class SavedPlanes {
 public:
  explicit SavedPlanes(const at::Tensor& tensor);

  at::Tensor restore(const at::Tensor& unpacked) const;

 private:
  struct Plane {
    LevelPtr level;
    // Of the value below.
    torch::autograd::Edge edge;
    std::shared_ptr<torch::autograd::ForwardGrad> tangent;
  };
  std::vector<Plane> planes_;  // the deepest first
};

}  // namespace functorch_ext
