#pragma once

#include <limits>
#include <optional>
#include <utility>

#include "engine/level.h"

// All that a transform changes of a thread, but for PyTorch's own flags (grad mode, forward mode,
// inference mode, dispatch keys). Every entry but the last four is set and restored by `Scoped`
// alone.
namespace functorch_ext {

class RepeatedDraws;

struct ThreadState {
  // The innermost running level that grad, vjp and jvp differentiate on; null is plane 0.
  LevelPtr plane;
  // The deepest running level; deeper than `plane` while a Jacobian pushes its basis through.
  LevelPtr innermost;
  // The level whose rule runs right now: operators that the rule calls on that level's own tensors
  // are part of it, and its autograd has seen them already.
  const Level* computing = nullptr;
  // How many differentiations run.
  int64_t differentiations = 0;
  // functionalize: what operators return belongs to Functional levels of less than this depth.
  int64_t functional_below = std::numeric_limits<int64_t>::max();
  // Whoever repeats the random draws of what runs here.
  RepeatedDraws* repeated_draws = nullptr;
  // In a normalization layer, which drops the statistics that the operator returns?
  bool drops_statistics = false;

  // How many dispatch modes only look on (see onlooking.h).
  int64_t onlooking_modes = 0;
  // How deep the levels are that may be gone back to while torch.func's transforms run.
  int64_t kept_depth = 0;
  // How often somebody asked for the memory of a tensor that has none.
  uint64_t memory_refusals = 0;
  // How often an operator got a tensor of a transform that has returned, or of another one at the
  // same depth.
  uint64_t foreign_tensors = 0;
};

namespace detail {
ThreadState& mutable_thread_state();
}

inline const ThreadState& thread_state() {
  return detail::mutable_thread_state();
}

// Gives an entry of this thread's state another value for as long as it lives.
template <auto entry>
class Scoped {
  using Value = std::remove_reference_t<decltype(std::declval<ThreadState&>().*entry)>;

 public:
  explicit Scoped(Value value)
      : state_(detail::mutable_thread_state()),
        outer_(std::exchange(state_.*entry, std::move(value))) {}
  ~Scoped() {
    state_.*entry = std::move(outer_);
  }
  Scoped(const Scoped&) = delete;
  Scoped& operator=(const Scoped&) = delete;

  const Value& outer() const {
    return outer_;
  }

 private:
  ThreadState& state_;
  Value outer_;
};

// The thread runs on another plane, with another innermost level.
class Position {
 public:
  Position(LevelPtr plane, LevelPtr innermost)
      : plane_(std::move(plane)), innermost_(std::move(innermost)) {}

 private:
  const Scoped<&ThreadState::plane> plane_;
  const Scoped<&ThreadState::innermost> innermost_;
};

// The depth of a level that begins now. It is above those that may be gone back to: of a transform
// that ran on a level of its own inside torch.func's, and left a pullback.
int64_t next_depth();
void keep_depth(int64_t depth);

void note_memory_refusal();
void note_foreign_tensor();

// Does a rule run, of a level around what runs on this thread, rather than the program itself?
bool in_rule();

// The plane and the innermost level are those of the values that a rule computes with, for as long
// as this lives. For code of the program that an operator calls: its implementation in Python, a
// hook of saved tensors, a dispatch mode.
class OutsideRules {
 public:
  OutsideRules();
  OutsideRules(const OutsideRules&) = delete;
  OutsideRules& operator=(const OutsideRules&) = delete;

 private:
  // None if no rule runs.
  std::optional<Scoped<&ThreadState::computing>> no_rule_;
  std::optional<Position> position_;
};

}  // namespace functorch_ext
