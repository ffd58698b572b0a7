#pragma once

#include "engine/thread_state.h"

// While functionalize runs, operators that get none of its tensors matter too: what torch.zeros()
// returns may be written to, so it has to be a tensor of the Functional level. `ahead_key` is
// switched on meanwhile.
namespace functorch_ext {

void register_functional_mode();

// While it is in scope, results of operators belong to running Functional levels of less than
// `depth` only.
class FunctionalBelow {
 public:
  explicit FunctionalBelow(int64_t depth);
  ~FunctionalBelow();
  FunctionalBelow(const FunctionalBelow&) = delete;
  FunctionalBelow& operator=(const FunctionalBelow&) = delete;

 private:
  const Scoped<&ThreadState::functional_below> depth_;
  const bool outer_included_;
};

}  // namespace functorch_ext
