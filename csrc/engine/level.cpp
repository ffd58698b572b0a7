#include "engine/level.h"

#include <algorithm>
#include <utility>

#include "engine/torch_func.h"

namespace functorch_ext {

namespace {
std::atomic<int64_t> live_levels{0};

// How deep the levels are that may be gone back to while torch.func's transforms run.
thread_local int64_t kept_depth = 0;
}  // namespace

Level::Level(LevelKind kind_, int64_t depth_, c10::SymInt batch_size_, Randomness randomness_,
             LevelPtr parent_, bool remove_views_)
    : kind(kind_),
      depth(depth_),
      batch_size(std::move(batch_size_)),
      randomness(randomness_),
      parent(std::move(parent_)),
      remove_views(remove_views_),
      layers(running_layers()) {
  ++live_levels;
}

Level::~Level() {
  --live_levels;
}

int64_t Level::count() {
  return live_levels.load();
}

ThreadState& thread_state() {
  static thread_local ThreadState state;
  return state;
}

bool in_rule() {
  const auto& state = thread_state();
  // Else the level was left, or another thread runs it.
  const Level* level = state.computing ? state.innermost.get() : nullptr;
  while (level && level != state.computing) {
    level = level->parent.get();
  }
  return level != nullptr;
}

OutsideRules::OutsideRules() {
  if (C10_UNLIKELY(in_rule())) {
    outer_.emplace();
    auto& state = thread_state();
    computing_ = std::exchange(state.computing, nullptr);
    state.innermost = computing_->parent;
    state.plane = plane_from(state.innermost);
  }
}

OutsideRules::~OutsideRules() {
  if (outer_) {
    thread_state().computing = computing_;
  }
}

int64_t next_depth() {
  if (running_layers() == 0) {
    kept_depth = 0;
  }
  return std::max(depth_of(thread_state().innermost), kept_depth) + 1;
}

void keep_depth(int64_t depth) {
  kept_depth = std::max(kept_depth, depth);
}

}  // namespace functorch_ext
