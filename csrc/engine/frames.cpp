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
  int64_t depth = depth_of(thread_state().innermost);
  for (const auto& tensor : tensors) {
    depth = std::max(depth, depth_of(tensor));
  }
  return depth;
}

}  // namespace

RunningLevel::RunningLevel(LevelPtr level, bool is_plane) : level_(std::move(level)) {
  check_no_foreign_transform();
  outer_.emplace();
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
  if (outer_) {
    --level_->runners;
    outer_.reset();
  }
}

BatchFrame::BatchFrame(c10::SymInt batch_size, Randomness randomness, bool is_plane,
                       const std::vector<at::Tensor>& above)
    : level_(
          c10::make_intrusive<Level>(LevelKind::Batch, depth_above(above) + 1,
                                     std::move(batch_size), randomness, thread_state().innermost),
          is_plane) {
  level_->is_basis = !is_plane;
  if (is_plane) {
    random_kernels_.emplace(randomness_key);
  }
}

RevivedFrame::RevivedFrame(LevelPtr level)
    : level_(std::move(level)), random_kernels_(randomness_key) {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    ++each->runners;
  }
  thread_state().innermost = level_;
  thread_state().plane = plane_from(level_);
}

RevivedFrame::~RevivedFrame() {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    --each->runners;
  }
}

BelowFrame::BelowFrame(LevelPtr level) : level_(std::move(level)), below_(*level_) {
  thread_state().innermost = level_->parent;
  thread_state().plane = plane_from(level_->parent);
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
