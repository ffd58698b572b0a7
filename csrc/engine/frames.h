#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <optional>
#include <vector>

#include "engine/routing.h"
#include "engine/thread_state.h"

namespace functorch_ext {

// A level that runs for as long as this lives. If it is the plane, what runs inside differentiates
// on it.
class RunningLevel {
 public:
  RunningLevel(LevelPtr level, bool is_plane);
  ~RunningLevel();
  RunningLevel(const RunningLevel&) = delete;
  RunningLevel& operator=(const RunningLevel&) = delete;
  void exit();

  Level& operator*() const {
    return *level_;
  }
  Level* operator->() const {
    return level_.get();
  }
  const LevelPtr& ptr() const {
    return level_;
  }

 private:
  const LevelPtr level_;
  std::optional<Position> position_;  // none once it has returned
};

// What is called before a level runs.
void set_before_levels(void (*function)());

// A new level, deeper than what runs on this thread, whose tensors stand for their values: a plane
// for derivatives of its own.
LevelPtr level_of_values();

// One running vmap (or a Jacobian's basis): a Batch level, for as long as this lives.
class BatchFrame {
 public:
  // `is_plane`: what runs inside differentiates on the new level; not so for a basis. The level is
  // deeper than what runs on this thread and than the tensors `above` (an autograd thread runs
  // nothing itself).
  BatchFrame(c10::SymInt batch_size, Randomness randomness, bool is_plane,
             const std::vector<at::Tensor>& above = {});
  BatchFrame(const BatchFrame&) = delete;
  BatchFrame& operator=(const BatchFrame&) = delete;

  const LevelPtr& level() const {
    return level_.ptr();
  }

 private:
  const OutsideRules outside_;
  RunningLevel level_;
  // A vmap turns the kernels of random operators on.
  std::optional<c10::impl::IncludeDispatchKeyGuard> random_kernels_;
};

// Goes back into a vmap that has returned, for code that runs again what ran in it (checkpointing,
// when the backward pass comes). Several threads may do so at once.
class RevivedFrame {
 public:
  explicit RevivedFrame(LevelPtr level);
  ~RevivedFrame();
  RevivedFrame(const RevivedFrame&) = delete;
  RevivedFrame& operator=(const RevivedFrame&) = delete;

 private:
  const LevelPtr level_;
  const Position position_;
  const c10::impl::IncludeDispatchKeyGuard random_kernels_;
};

// Leaves a running level for the plane below it, while code works on the values of its tensors.
class BelowFrame {
 public:
  explicit BelowFrame(LevelPtr level);
  BelowFrame(const BelowFrame&) = delete;
  BelowFrame& operator=(const BelowFrame&) = delete;

 private:
  const LevelPtr level_;
  const Position position_;
  const PlaneBelow below_;
};

// A tensor of the level as a plain stack of samples along `out_dim`; one that is the same for all
// samples is repeated, without a copy.
at::Tensor stacked(const at::Tensor& tensor, int64_t out_dim, const Level& level);

}  // namespace functorch_ext
