#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>
#include <vector>

#include "engine/derivatives.h"
#include "engine/routing.h"

namespace functorch_ext {

// Does the tensor belong to the plane (null: plane 0), rather than to a lower one?
inline bool on_plane(const at::Tensor& tensor, const LevelPtr& plane) {
  return plane ? wrapper_at(tensor, *plane) != nullptr : !is_wrapper(tensor);
}

// The deepest plane among the tensors (null: plane 0).
LevelPtr plane_of(const std::vector<at::Tensor>& tensors);

// The tensor as a member of the plane: one of a lower plane is the same for all its samples.
inline at::Tensor lift_to(const at::Tensor& tensor, const LevelPtr& plane) {
  if (depth_of(tensor) >= depth_of(plane)) {
    return tensor;
  }
  auto wrapped = wrap(tensor, no_bdim, *plane);
  share_version_counter(wrapped, tensor);
  return wrapped;
}

// What a tensor stands for on the plane, if it is of a deeper one.
inline at::Tensor value_on(at::Tensor tensor, const LevelPtr& plane) {
  while (depth_of(tensor) > depth_of(plane)) {
    tensor = at::Tensor(wrapper_of(tensor)->value());
  }
  return tensor;
}

// The tensor without the wrapper of a level that stands for its value.
at::Tensor without_level(const at::Tensor& tensor, const Level& level);

// Makes a level the thread's plane for as long as this lives, or the level of the deepest tensor,
// if the thread's plane isn't as deep. Code in a backward pass, a hook or another thread gets
// tensors of planes that its thread isn't on: what it differentiates are these tensors.
class OnPlane {
 public:
  explicit OnPlane(LevelPtr level);
  explicit OnPlane(const std::vector<at::Tensor>& tensors);
  ~OnPlane();
  OnPlane(const OnPlane&) = delete;
  OnPlane& operator=(const OnPlane&) = delete;

 private:
  void enter(LevelPtr level);

  std::optional<Position> position_;  // none if the thread was there already
  std::optional<c10::impl::IncludeDispatchKeyGuard> random_kernels_;
};

// Derivatives are recorded wherever a transform runs: inference mode is left for as long as this
// lives, and so is an operator whose autograd has done its part, such as a custom operator that
// differentiates in its implementation.
class RecordingAllowed {
 public:
  RecordingAllowed();

  // Did autograd look at what is computed here, before?
  bool was_allowed() const {
    return !normal_mode_ && !with_autograd_;
  }

 private:
  const OutsideRules outside_;
  std::optional<c10::InferenceMode> normal_mode_;
  std::optional<c10::impl::ForceDispatchKeyGuard> with_autograd_;
};

// An inference tensor can't take part in autograd; a copy of it can.
inline at::Tensor normal_tensor(const at::Tensor& tensor) {
  return tensor.is_inference() ? tensor.clone() : tensor;
}

// Does a derivative flow through the tensor, on its own plane or on a lower one?
bool is_differentiated_anywhere(const at::Tensor& tensor);

// Does one flow through what the tensor stands for on the planes below `level`?
inline bool is_differentiated_below(const at::Tensor& tensor, const Level& level) {
  return is_differentiated_anywhere(value_of(tensor, level));
}

enum class Direction : bool { Reverse, Forward };

// A differentiation runs on a plane, for as long as this lives. `mode_below`: grad mode or forward
// mode as it is outside.
class Differentiation {
 public:
  Differentiation(LevelPtr plane, Direction direction, bool mode_below);
  ~Differentiation();
  Differentiation(const Differentiation&) = delete;
  Differentiation& operator=(const Differentiation&) = delete;

 private:
  std::atomic<int32_t>& running_on_plane() const;

  const Differentiating differentiating_;
  const LevelPtr plane_;
  const Direction direction_;
};

}  // namespace functorch_ext
