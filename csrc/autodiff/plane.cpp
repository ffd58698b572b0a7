#include "autodiff/plane.h"

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
  const auto& innermost = thread_state().innermost;
  position_.emplace(level, depth_of(innermost) < level->depth ? level : innermost);
  if (level->has_samples) {
    random_kernels_.emplace(randomness_key);
  }
  if (level->is_basis) {
    ++level->formulas_running;
  }
}

OnPlane::~OnPlane() {
  if (position_ && thread_state().plane->is_basis) {
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

Differentiation::Differentiation(LevelPtr plane, Direction direction, bool mode_below)
    : plane_(std::move(plane)), direction_(direction) {
  if (plane_ && running_on_plane()++ == 0) {
    (direction_ == Direction::Forward ? plane_->forward_mode_below : plane_->grad_mode_below) =
        mode_below;
  }
}

Differentiation::~Differentiation() {
  if (plane_) {
    --running_on_plane();
  }
}

std::atomic<int32_t>& Differentiation::running_on_plane() const {
  return direction_ == Direction::Forward ? plane_->forward_running : plane_->reverse_running;
}

}  // namespace functorch_ext
