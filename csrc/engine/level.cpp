#include "engine/level.h"

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

}  // namespace functorch_ext
