#pragma once

#include <c10/core/SymInt.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace c10 {
class OperatorHandle;
struct IValue;
}  // namespace c10

namespace functorch_ext {

enum class Randomness : uint8_t { Error, Same, Different };

// One running transform that needs wrapper tensors.
//
// All tensors of one level form a plane; plane 0 (no level) is plain tensors. Each wrapper holds
// its level, so what an operator must do follows from its arguments, not from a global stack:
// autograd's worker threads and escaped closures see the right thing.
//
// What a kind of level has of its own: two constants, which the engine asks for at every operator,
// and what it overrides.
struct Level : c10::intrusive_ptr_target {
  ~Level() override;

  // The kind computes every operator on its tensors, and keeps account of their memory: compute()
  // in place of rules, loops and own_memory.h.
  const bool computes_operators;
  virtual void compute(const c10::OperatorHandle& op, std::vector<c10::IValue>* stack) const;
  // Its tensors stand for samples: they may be batched, and random operators draw for each.
  const bool has_samples;

  const int64_t depth;                     // 1 = outermost
  const c10::SymInt batch_size;            // of a level with samples
  const Randomness randomness;             // of a level with samples
  const c10::intrusive_ptr<Level> parent;  // the running level around this one
  const int64_t layers;                    // how many transforms of torch.func's are around it
  const int64_t modes;                     // how many modes that see all operators are around it
  // A Jacobian's basis: random operators don't belong to it, but to the vmap around it, and what
  // runs inside differentiates on a plane below.
  const bool is_basis;

  // A vmap: the program calls its function once for all samples.
  bool is_vmap() const {
    return has_samples && !is_basis;
  }
  // Its tensors stand for their values, and have derivatives of their own.
  bool stands_for_values() const {
    return !has_samples && !computes_operators;
  }
  bool is_of_kind_of(const Level& other) const {
    return has_samples == other.has_samples && computes_operators == other.computes_operators;
  }

  // Who runs it: the transform, until it returns, and those who run again what ran in it.
  std::atomic<int32_t> runners{1};
  bool is_running() const {
    return runners.load(std::memory_order_relaxed) > 0;
  }
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
  static int64_t count() {
    return live.load(std::memory_order_relaxed);
  }

 protected:
  // What the kinds differ in.
  struct Kind {
    bool computes_operators = false;
    bool has_samples = false;
    bool is_basis = false;
    c10::SymInt batch_size = 0;
    Randomness randomness = Randomness::Error;
  };
  Level(Kind kind, int64_t depth, c10::intrusive_ptr<Level> parent);

 private:
  static inline std::atomic<int64_t> live{0};
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

// vmap, or a Jacobian's basis: tensors stand for a stack of samples.
struct BatchLevel final : Level {
  BatchLevel(c10::SymInt batch_size, Randomness randomness, bool is_basis, int64_t depth,
             LevelPtr parent)
      : Level({.has_samples = true,
               .is_basis = is_basis,
               .batch_size = std::move(batch_size),
               .randomness = randomness},
              depth, std::move(parent)) {}
};

// Forward mode inside forward mode of the same plane, or a derivative inside a transform of
// torch.func's: tensors stand for their values, and have a tangent or a graph of their own.
struct ValueLevel final : Level {
  ValueLevel(int64_t depth, LevelPtr parent) : Level({}, depth, std::move(parent)) {}
};

}  // namespace functorch_ext
