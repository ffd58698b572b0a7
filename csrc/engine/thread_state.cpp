#include "engine/thread_state.h"

#include <algorithm>

#include "engine/torch_func.h"

namespace functorch_ext {

ThreadState& detail::mutable_thread_state() {
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
    no_rule_.emplace(nullptr);
    const auto& below = no_rule_->outer()->parent;
    position_.emplace(plane_from(below), below);
  }
}

int64_t next_depth() {
  auto& state = detail::mutable_thread_state();
  if (running_layers() == 0) {
    state.kept_depth = 0;
  }
  return std::max(depth_of(state.innermost), state.kept_depth) + 1;
}

void keep_depth(int64_t depth) {
  auto& kept = detail::mutable_thread_state().kept_depth;
  kept = std::max(kept, depth);
}

void note_memory_refusal() {
  ++detail::mutable_thread_state().memory_refusals;
}

void note_foreign_tensor() {
  ++detail::mutable_thread_state().foreign_tensors;
}

}  // namespace functorch_ext
