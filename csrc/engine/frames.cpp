#include "engine/frames.h"

#include <ATen/ops/movedim.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "engine/randomness.h"
#include "engine/wrapper.h"

namespace functorch_ext {

namespace {

int64_t depth_above(const std::vector<at::Tensor>& tensors) {
  const auto& running = thread_state().innermost;
  int64_t depth = running ? running->depth : 0;
  for (const auto& tensor : tensors) {
    depth = std::max(depth, is_wrapper(tensor) ? wrapper_of(tensor)->level().depth : 0);
  }
  return depth;
}

// What differentiates when `innermost` is the deepest running level.
LevelPtr plane_of(LevelPtr innermost) {
  while (innermost && !innermost->is_plane()) {
    innermost = innermost->parent;
  }
  return innermost;
}

}  // namespace

RunningLevel::RunningLevel(LevelPtr level, bool is_plane)
    : level_(std::move(level)),
      outer_plane_(thread_state().plane),
      outer_innermost_(thread_state().innermost) {
  auto& state = thread_state();
  state.innermost = level_;
  if (is_plane) {
    state.plane = level_;
  }
}

RunningLevel::~RunningLevel() {
  exit();
}

void RunningLevel::exit() {
  if (is_running()) {
    level_->alive = false;
    thread_state().plane = outer_plane_;
    thread_state().innermost = outer_innermost_;
  }
}

BatchFrame::BatchFrame(int64_t batch_size, Randomness randomness, bool is_plane,
                       const std::vector<at::Tensor>& above)
    : level_(
          c10::make_intrusive<Level>(LevelKind::Batch, depth_above(above) + 1,
                                     c10::SymInt(batch_size), randomness, thread_state().innermost),
          is_plane) {
  level_->is_basis = !is_plane;
  if (is_plane) {
    includes_randomness_ = !c10::impl::tls_is_dispatch_key_included(randomness_key);
    c10::impl::tls_set_dispatch_key_included(randomness_key, true);
  }
}

BatchFrame::~BatchFrame() {
  exit();
}

void BatchFrame::exit() {
  level_.exit();
  if (std::exchange(includes_randomness_, false)) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, false);
  }
}

at::Tensor BatchFrame::wrap(const at::Tensor& tensor, int64_t bdim) const {
  return functorch_ext::wrap(tensor, bdim, *level_);
}

at::Tensor BatchFrame::unwrap(const at::Tensor& tensor, int64_t out_dim) const {
  const auto* wrapper = wrapper_at(tensor, *level_);
  if (wrapper && wrapper->is_batched()) {
    return wrapper->bdim() == out_dim ? wrapper->value()
                                      : wrapper->value().movedim(wrapper->bdim(), out_dim);
  }
  const auto& value = wrapper ? wrapper->value() : tensor;
  auto sizes = value.sym_sizes().vec();
  sizes.insert(sizes.begin() + out_dim, level_->batch_size);
  return value.unsqueeze(out_dim).expand_symint(sizes);
}

bool BatchFrame::is_batched(const at::Tensor& tensor) const {
  return is_batched_at(tensor, *level_);
}

at::Tensor BatchFrame::value(const at::Tensor& tensor) const {
  return value_of(tensor, *level_);
}

RevivedFrame::RevivedFrame(const LevelPtr& level)
    : outer_plane_(thread_state().plane),
      outer_innermost_(thread_state().innermost),
      includes_randomness_(!c10::impl::tls_is_dispatch_key_included(randomness_key)) {
  for (auto each = level; each; each = each->parent) {
    if (!each->alive.exchange(true)) {
      revived_.push_back(each);
    }
  }
  thread_state().innermost = level;
  thread_state().plane = plane_of(level);
  c10::impl::tls_set_dispatch_key_included(randomness_key, true);
}

RevivedFrame::~RevivedFrame() {
  exit();
}

void RevivedFrame::exit() {
  if (!std::exchange(running_, false)) {
    return;
  }
  for (const auto& level : revived_) {
    level->alive = false;
  }
  thread_state().plane = outer_plane_;
  thread_state().innermost = outer_innermost_;
  if (includes_randomness_) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, false);
  }
}

BelowFrame::BelowFrame(const LevelPtr& level)
    : outer_plane_(thread_state().plane),
      outer_innermost_(thread_state().innermost),
      below_(std::in_place, *level) {
  thread_state().innermost = level->parent;
  thread_state().plane = plane_of(level->parent);
}

BelowFrame::~BelowFrame() {
  exit();
}

void BelowFrame::exit() {
  if (below_) {
    below_.reset();
    thread_state().plane = outer_plane_;
    thread_state().innermost = outer_innermost_;
  }
}

}  // namespace functorch_ext
