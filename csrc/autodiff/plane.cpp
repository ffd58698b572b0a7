#include "autodiff/plane.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "engine/derivatives.h"

namespace functorch_ext {

OnPlane::OnPlane(LevelPtr level) {
  enter(std::move(level));
}

OnPlane::OnPlane(const std::vector<at::Tensor>& tensors) {
  LevelPtr deepest = thread_state().plane;
  for (const auto& tensor : tensors) {
    if (depth_of(tensor) > depth_of(deepest) && wrapper_of(tensor)->level().is_running()) {
      deepest = wrapper_of(tensor)->level_ptr();
    }
  }
  if (deepest != thread_state().plane) {
    enter(std::move(deepest));
  }
}

void OnPlane::enter(LevelPtr level) {
  auto& state = thread_state();
  entered_ = true;
  outer_plane_ = state.plane;
  outer_innermost_ = state.innermost;
  if (depth_of(state.innermost) < level->depth) {
    state.innermost = level;
  }
  includes_randomness_ =
      level->kind == LevelKind::Batch && !c10::impl::tls_is_dispatch_key_included(randomness_key);
  if (includes_randomness_) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, true);
  }
  if (level->is_basis) {
    ++level->formulas_running;
  }
  state.plane = std::move(level);
}

OnPlane::~OnPlane() {
  if (!entered_) {
    return;
  }
  if (thread_state().plane->is_basis) {
    --thread_state().plane->formulas_running;
  }
  thread_state().plane = std::move(outer_plane_);
  thread_state().innermost = std::move(outer_innermost_);
  if (includes_randomness_) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, false);
  }
}

bool is_differentiated_anywhere(const at::Tensor& tensor) {
  return tensor.requires_grad() || tensor._fw_grad(0).defined() ||
         (is_wrapper(tensor) && is_differentiated_anywhere(wrapper_of(tensor)->value()));
}

void begin_differentiation(const LevelPtr& plane, Direction direction, bool mode_below) {
  include_derivative_key();
  if (!plane) {
    return;
  }
  if (direction == Direction::Forward) {
    if (plane->forward_running++ == 0) {
      plane->forward_mode_below = mode_below;
    }
  } else if (plane->reverse_running++ == 0) {
    plane->grad_mode_below = mode_below;
  }
}

void end_differentiation(const LevelPtr& plane, Direction direction) {
  exclude_derivative_key();
  if (plane) {
    --(direction == Direction::Reverse ? plane->reverse_running : plane->forward_running);
  }
}

}  // namespace functorch_ext
