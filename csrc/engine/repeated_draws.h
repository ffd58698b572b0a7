#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <utility>
#include <vector>

#include "engine/thread_state.h"

namespace functorch_ext {

// While this lives, parts of one computation run one after the other and all draw the same random
// numbers: the chunks of a batch whose samples share theirs, or of a Jacobian. Each part finds the
// generators as the first one that drew from them did.
class RepeatedDraws {
 public:
  RepeatedDraws();
  RepeatedDraws(const RepeatedDraws&) = delete;
  RepeatedDraws& operator=(const RepeatedDraws&) = delete;

  // Before each part: gives the generators the states that they had.
  void rewind();

  // A random operator is about to draw. Costs nothing unless draws are repeated on this thread.
  static void note(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
    if (C10_UNLIKELY(thread_state().repeated_draws != nullptr)) {
      note_generator(op, stack);
    }
  }

 private:
  static void note_generator(const c10::OperatorHandle& op, const torch::jit::Stack& stack);

  const Scoped<&ThreadState::repeated_draws> here_{this};
  const c10::impl::IncludeDispatchKeyGuard random_kernels_;
  std::vector<std::pair<at::Generator, at::Tensor>> first_states_;
};

}  // namespace functorch_ext
