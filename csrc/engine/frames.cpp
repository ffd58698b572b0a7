#include "engine/frames.h"

#include <ATen/ops/movedim.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "engine/randomness.h"
#include "engine/wrapper.h"

namespace functorch_ext {

namespace {

// torch.func's transforms, which this key belongs to, take the level's tensors for their own.
void check_no_foreign_transform() {
  TORCH_CHECK(
      !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode),
      "functorch_ext's transforms with tensors of their own (vmap, functionalize, or forward "
      "mode in forward mode) can't run inside torch.func's, which know nothing of such "
      "tensors. Use functorch_ext's in both places.");
}

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
  check_no_foreign_transform();
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
  if (std::exchange(running_, false)) {
    --level_->runners;
    thread_state().plane = std::move(outer_plane_);
    thread_state().innermost = std::move(outer_innermost_);
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
  if (includes_randomness_) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, false);
  }
}

RevivedFrame::RevivedFrame(LevelPtr level)
    : level_(std::move(level)),
      outer_plane_(thread_state().plane),
      outer_innermost_(thread_state().innermost),
      includes_randomness_(!c10::impl::tls_is_dispatch_key_included(randomness_key)) {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    ++each->runners;
  }
  thread_state().innermost = level_;
  thread_state().plane = plane_of(level_);
  c10::impl::tls_set_dispatch_key_included(randomness_key, true);
}

RevivedFrame::~RevivedFrame() {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    --each->runners;
  }
  thread_state().plane = std::move(outer_plane_);
  thread_state().innermost = std::move(outer_innermost_);
  if (includes_randomness_) {
    c10::impl::tls_set_dispatch_key_included(randomness_key, false);
  }
}

BelowFrame::BelowFrame(LevelPtr level)
    : level_(std::move(level)),
      outer_plane_(thread_state().plane),
      outer_innermost_(thread_state().innermost),
      below_(*level_) {
  thread_state().innermost = level_->parent;
  thread_state().plane = plane_of(level_->parent);
}

BelowFrame::~BelowFrame() {
  thread_state().plane = std::move(outer_plane_);
  thread_state().innermost = std::move(outer_innermost_);
}

at::Tensor stacked(const at::Tensor& tensor, int64_t out_dim, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  if (wrapper && wrapper->is_batched()) {
    return wrapper->bdim() == out_dim ? wrapper->value()
                                      : wrapper->value().movedim(wrapper->bdim(), out_dim);
  }
  const auto& value = wrapper ? wrapper->value() : tensor;
  auto sizes = value.sym_sizes().vec();
  sizes.insert(sizes.begin() + out_dim, level.batch_size);
  return value.unsqueeze(out_dim).expand_symint(sizes);
}

}  // namespace functorch_ext
