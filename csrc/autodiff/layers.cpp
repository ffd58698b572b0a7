#include "autodiff/layers.h"

#include <algorithm>
#include <optional>

#include "autodiff/plane.h"

namespace functorch_ext {

at::Tensor Layers::peel(at::Tensor tensor, const LevelPtr& plane) {
  while (tensor.defined() && depth_of(tensor) > depth_of(plane)) {
    const auto* wrapper = wrapper_of(tensor);
    layers_.emplace_back(wrapper->level_ptr(), wrapper->bdim());
    tensor = at::Tensor(wrapper->value());
  }
  return tensor;
}

at::Tensor Layers::restore(at::Tensor tensor, const FreshLevels* fresh) const {
  for (auto layer = layers_.rbegin(); tensor.defined() && layer != layers_.rend(); ++layer) {
    const auto& [level, bdim] = *layer;
    tensor = wrap(std::move(tensor), bdim, fresh ? (*fresh)(level) : *level);
  }
  return tensor;
}

struct FreshLevels::Entered {
  explicit Entered(LevelPtr level_) : level(std::move(level_)) {
    if (!level->is_running()) {
      frame.emplace(level->batch_size, level->randomness,
                    /*is_plane=*/!level->is_basis);
    }
    on_plane.emplace(frame ? frame->level() : level);
  }

  const LevelPtr level;
  std::optional<BatchFrame> frame;  // of the new level, if one is needed
  std::optional<OnPlane> on_plane;
};

FreshLevels::FreshLevels(const std::vector<Layers>& layers) {
  std::vector<LevelPtr> levels;
  for (const auto& each : layers) {
    for (const auto& layer : each.layers_) {
      const auto& level = layer.first;
      const bool returned = level->has_samples && !level->is_running();
      if (returned || depth_of(level) > depth_of(thread_state().innermost)) {
        levels.push_back(level);
      }
    }
  }
  std::sort(levels.begin(), levels.end(), [](const LevelPtr& level, const LevelPtr& other) {
    return std::pair(level->depth, level.get()) < std::pair(other->depth, other.get());
  });
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  for (auto& level : levels) {
    entered_.push_back(std::make_unique<Entered>(std::move(level)));
  }
}

FreshLevels::~FreshLevels() {
  while (!entered_.empty()) {
    entered_.pop_back();
  }
}

Level& FreshLevels::operator()(const LevelPtr& level) const {
  for (const auto& entered : entered_) {
    if (entered->level == level && entered->frame) {
      return *entered->frame->level();
    }
  }
  return *level;
}

}  // namespace functorch_ext
