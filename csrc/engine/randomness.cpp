#include "engine/randomness.h"

#include "engine/thread_state.h"

namespace functorch_ext {

const Level* level_of_randomness(int64_t layers) {
  const auto& state = thread_state();
  const Level* level = state.computing ? state.computing->parent.get() : state.plane.get();
  while (level && (level->layers > layers || !level->is_vmap())) {
    level = level->parent.get();
  }
  return level;
}

void check_randomness_allowed(const Level& level, const c10::OperatorHandle& op) {
  TORCH_CHECK(
      level.randomness != Randomness::Error,
      "functorch_ext.vmap: called random operation while in randomness error mode: ",
      op.operator_name(),
      " under randomness='error'. Pass randomness='different' to vmap to draw anew for each "
      "sample, or randomness='same' to draw once for all samples.");
}

void raise_shared_target(const c10::OperatorHandle& op) {
  TORCH_CHECK(false, "functorch_ext.vmap: ", op.operator_name(),
              " under randomness='different' would write different draws, in place, into an "
              "unbatched tensor that all samples share. Use the out-of-place form of the operator, "
              "or make the tensor from a batched one (for example with torch.empty_like(x)).");
}

void raise_same_of_batched(const c10::OperatorHandle& op) {
  TORCH_CHECK(false, "functorch_ext.vmap: ", op.operator_name(),
              " can't draw the same for all samples (randomness='same') while it is traced, as its "
              "parameters differ between samples: that winds the generator back. Use "
              "randomness='different', or unbatched parameters.");
}

}  // namespace functorch_ext
