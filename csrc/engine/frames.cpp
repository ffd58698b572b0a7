#include "engine/frames.h"

#include <ATen/ops/movedim.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "engine/derivatives.h"
#include "engine/layout.h"
#include "engine/randomness.h"
#include "engine/torch_func.h"
#include "engine/wrapper.h"

namespace functorch_ext {

namespace {

void (*before_level)() = nullptr;

int64_t depth_above(const std::vector<at::Tensor>& tensors) {
  int64_t depth = next_depth();
  for (const auto& tensor : tensors) {
    depth = std::max(depth, depth_of(tensor) + 1);
  }
  return depth;
}

}  // namespace

void set_before_levels(void (*function)()) {
  before_level = function;
}

RunningLevel::RunningLevel(LevelPtr level, bool is_plane) : level_(std::move(level)) {
  if (before_level) {
    before_level();
  }
  position_.emplace(is_plane ? level_ : thread_state().plane, level_);
}

LevelPtr level_of_values() {
  return c10::make_intrusive<ValueLevel>(next_depth(), thread_state().innermost);
}

RunningLevel::~RunningLevel() {
  exit();
}

void RunningLevel::exit() {
  if (position_) {
    --level_->runners;
    position_.reset();
  }
}

BatchFrame::BatchFrame(c10::SymInt batch_size, Randomness randomness, bool is_plane,
                       const std::vector<at::Tensor>& above)
    : level_(c10::make_intrusive<BatchLevel>(std::move(batch_size), randomness,
                                             /*is_basis=*/!is_plane, depth_above(above),
                                             thread_state().innermost),
             is_plane) {
  if (is_plane) {
    before_transforms();  // the program may differentiate inside
    random_kernels_.emplace(randomness_key);
  }
}

RevivedFrame::RevivedFrame(LevelPtr level)
    : level_(std::move(level)),
      position_(plane_from(level_), level_),
      random_kernels_(randomness_key) {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    ++each->runners;
  }
}

RevivedFrame::~RevivedFrame() {
  for (auto* each = level_.get(); each; each = each->parent.get()) {
    --each->runners;
  }
}

BelowFrame::BelowFrame(LevelPtr level)
    : level_(std::move(level)),
      position_(plane_from(level_->parent), level_->parent),
      below_(*level_) {}

at::Tensor stacked(const at::Tensor& tensor, int64_t out_dim, const Level& level) {
  if (C10_UNLIKELY(tensor.key_set().has_any(torch_func_wrappers)) && is_of_ended_layer(tensor)) {
    return stacked(without_ended_layers(tensor), out_dim, level);
  }
  const auto* wrapper = wrapper_at(tensor, level);
  if (wrapper && wrapper->is_batched()) {
    return wrapper->bdim() == out_dim ? wrapper->value()
                                      : wrapper->value().movedim(wrapper->bdim(), out_dim);
  }
  const auto& value = wrapper ? wrapper->value() : tensor;
  TORCH_CHECK(is_strided(value),
              "functorch_ext.vmap: an output that isn't strided can't hold samples. Give it the "
              "out_dim None, or return a dense tensor.");
  auto sizes = value.sym_sizes().vec();
  sizes.insert(sizes.begin() + out_dim, level.batch_size);
  return value.unsqueeze(out_dim).expand_symint(sizes);
}

}  // namespace functorch_ext
