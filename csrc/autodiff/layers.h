#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/frames.h"

namespace functorch_ext {

class FreshLevels;

// Tensors of deeper planes (a Jacobian's basis) as their values on `plane`, and back.
class Layers {
 public:
  at::Tensor peel(at::Tensor tensor, const LevelPtr& plane);
  at::Tensor restore(at::Tensor tensor, const FreshLevels* fresh = nullptr) const;

 private:
  friend class FreshLevels;
  std::vector<std::pair<LevelPtr, int64_t>> layers_;
};

// Goes back onto the levels of the layers, with new levels in place of those that have returned: a
// backward pass runs again what an inner pass ran with the vectors of its basis. A new level is
// deeper than all that runs: that of another basis may run at the depth of the old one.
class FreshLevels {
 public:
  explicit FreshLevels(const std::vector<Layers>& layers);
  ~FreshLevels();
  FreshLevels(const FreshLevels&) = delete;
  FreshLevels& operator=(const FreshLevels&) = delete;

  // What stands for the level of a layer: itself if it runs.
  Level& operator()(const LevelPtr& level) const;

 private:
  struct Entered;
  std::vector<std::unique_ptr<Entered>> entered_;
};

}  // namespace functorch_ext
