#pragma once

#include <c10/core/SymInt.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

namespace functorch_ext {

// What the wrappers of a level stand for.
enum class LevelKind : uint8_t {
  Batch,       // vmap: a stack of samples
  Dual,        // forward mode running inside forward mode of the same plane
  Functional,  // functionalize: a value that mutations replace
};

enum class Randomness : uint8_t { Error, Same, Different };

// One running transform that needs wrapper tensors.
//
// All tensors of one level form a plane; plane 0 (no level) is plain tensors. Each wrapper holds
// its level, so what an operator must do follows from its arguments, not from a global stack:
// autograd's worker threads and escaped closures see the right thing.
struct Level final : c10::intrusive_ptr_target {
  Level(LevelKind kind, int64_t depth, c10::SymInt batch_size, Randomness randomness,
        c10::intrusive_ptr<Level> parent, bool remove_views = false);
  ~Level() override;

  const LevelKind kind;
  const int64_t depth;                     // 1 = outermost
  const c10::SymInt batch_size;            // of a Batch level
  const Randomness randomness;             // of a Batch level
  const c10::intrusive_ptr<Level> parent;  // the running level around this one
  const bool remove_views;                 // of a Functional level
  const int64_t layers;                    // how many transforms of torch.func's are around it

  // Who runs it: the transform, until it returns, and those who run again what ran in it.
  std::atomic<int32_t> runners{1};
  bool is_running() const {
    return runners.load(std::memory_order_relaxed) > 0;
  }
  // A Jacobian's basis: random operators don't belong to it, but to the vmap around it, and what
  // runs inside differentiates on a plane below.
  bool is_basis = false;
  // Backward passes and formulas of the program's own derivatives (a custom function's) that run
  // with a basis' vectors as their data: to them it is a plane like any other.
  std::atomic<int32_t> formulas_running{0};
  bool is_plane() const {
    return !is_basis || formulas_running.load(std::memory_order_relaxed) > 0;
  }
  // How many reverse-mode and forward-mode transforms run on this plane right now.
  std::atomic<int32_t> reverse_running{0};
  std::atomic<int32_t> forward_running{0};
  // Backward passes that record no graph, of which one may run inside another.
  std::atomic<int32_t> backward_without_graph{0};
  // Grad mode and forward mode of the planes below while reverse mode or forward mode runs on this
  // one: as they were outside.
  std::atomic<bool> grad_mode_below{true};
  std::atomic<bool> forward_mode_below{true};
  // Held while an operator works on memory made inside, which another thread may lay out anew.
  mutable std::recursive_mutex own_memory;

  // The number of Level objects in existence, for leak tests.
  static int64_t count();
};

using LevelPtr = c10::intrusive_ptr<Level>;

// How deep a level or plane is; plane 0 has no level.
inline int64_t depth_of(const LevelPtr& level) {
  return level ? level->depth : 0;
}

// The innermost plane from a level outwards: of a Jacobian's basis, the one around it.
inline const LevelPtr& plane_from(const LevelPtr& level) {
  const LevelPtr* found = &level;
  while (*found && !(*found)->is_plane()) {
    found = &(*found)->parent;
  }
  return *found;
}

// The level around this one, or none if a transform of torch.func's is between the two.
inline LevelPtr next_to(const Level& level) {
  const auto& parent = level.parent;
  return parent && parent->layers == level.layers ? parent : LevelPtr();
}

// What runs on this thread.
struct ThreadState {
  // The innermost running level that grad, vjp and jvp differentiate on; null is plane 0.
  LevelPtr plane;
  // The deepest running level; deeper than `plane` while a Jacobian pushes its basis through.
  LevelPtr innermost;
  // The level whose rule runs right now: operators that the rule calls on that level's own tensors
  // are part of it, and its autograd has seen them already.
  const Level* computing = nullptr;
  // How often somebody asked for the memory of a tensor that has none.
  uint64_t memory_refusals = 0;
};

ThreadState& thread_state();

// The depth of a level that begins now. It is above those that may be gone back to: of a transform
// that ran on a level of its own inside torch.func's, and left a pullback.
int64_t next_depth();
void keep_depth(int64_t depth);

// The plane and the innermost level of this thread, which are what they were when this ends.
class SavedPosition {
 public:
  SavedPosition() : plane_(thread_state().plane), innermost_(thread_state().innermost) {}
  ~SavedPosition() {
    thread_state().plane = std::move(plane_);
    thread_state().innermost = std::move(innermost_);
  }
  SavedPosition(const SavedPosition&) = delete;
  SavedPosition& operator=(const SavedPosition&) = delete;

 private:
  LevelPtr plane_;
  LevelPtr innermost_;
};

// Does a rule run, of a level around what runs on this thread, rather than the program itself?
bool in_rule();

// The plane and the innermost level are those of the values that a rule computes with, for as long
// as this lives. For code of the program that an operator calls: its implementation in Python, a
// hook of saved tensors, a dispatch mode.
class OutsideRules {
 public:
  OutsideRules();
  ~OutsideRules();
  OutsideRules(const OutsideRules&) = delete;
  OutsideRules& operator=(const OutsideRules&) = delete;

 private:
  std::optional<SavedPosition> outer_;  // none if no rule runs
  const Level* computing_ = nullptr;
};

}  // namespace functorch_ext
