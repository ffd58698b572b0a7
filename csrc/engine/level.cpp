#include "engine/level.h"

#include <utility>

namespace functorch_ext {

namespace {
std::atomic<int64_t> live_levels{0};
}  // namespace

Level::Level(LevelKind kind_, int64_t depth_, c10::SymInt batch_size_, Randomness randomness_,
             LevelPtr parent_, bool remove_views_)
    : kind(kind_),
      depth(depth_),
      batch_size(std::move(batch_size_)),
      randomness(randomness_),
      parent(std::move(parent_)),
      remove_views(remove_views_) {
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

}  // namespace functorch_ext
