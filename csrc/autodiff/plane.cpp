#include "autodiff/plane.h"

#include "engine/derivatives.h"

namespace functorch_ext {

RecordingAllowed::RecordingAllowed() {
  if (c10::InferenceMode::is_enabled()) {
    normal_mode_.emplace(false);
  }
  auto keys = c10::impl::tls_local_dispatch_key_set();
  if (C10_UNLIKELY(keys.excluded_.has_any(c10::autograd_dispatch_keyset))) {
    keys.excluded_ = keys.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
    with_autograd_.emplace(keys);
  }
}

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
  outer_.emplace();
  auto& state = thread_state();
  if (depth_of(state.innermost) < level->depth) {
    state.innermost = level;
  }
  if (level->kind == LevelKind::Batch) {
    random_kernels_.emplace(randomness_key);
  }
  if (level->is_basis) {
    ++level->formulas_running;
  }
  state.plane = std::move(level);
}

OnPlane::~OnPlane() {
  if (outer_ && thread_state().plane->is_basis) {
    --thread_state().plane->formulas_running;
  }
}

LevelPtr plane_of(const std::vector<at::Tensor>& tensors) {
  LevelPtr plane;
  for (const auto& tensor : tensors) {
    if (tensor.defined() && depth_of(tensor) > depth_of(plane)) {
      plane = wrapper_of(tensor)->level_ptr();
    }
  }
  return plane;
}

at::Tensor without_level(const at::Tensor& tensor, const Level& level) {
  if (depth_of(tensor) < level.depth) {
    return tensor;
  }
  const auto* wrapper = wrapper_of(tensor);
  return &wrapper->level() == &level
             ? wrapper->value()
             : wrap(without_level(wrapper->value(), level), wrapper->bdim(), wrapper->level());
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
