#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include "engine/keys.h"
#include "engine/level.h"

// Random operators inside vmap: which level's `randomness` applies, and how operators that have
// nothing batched among their arguments learn of it.
namespace functorch_ext {

// The vmap whose `randomness` applies to an operator called now: the innermost one around the
// caller. A rule computes on the plane below its level, so outer vmaps apply to what it calls; so
// it is with what torch.func's transforms around a level call. `layers`: how many of theirs run.
const Level* level_of_randomness(int64_t layers);

// Raises for an operator under randomness='error'.
void check_randomness_allowed(const Level& level, const c10::OperatorHandle& op);
// Raises for one that would write different draws into a tensor that all samples share.
[[noreturn]] void raise_shared_target(const c10::OperatorHandle& op);
// Raises for one that can't draw the same for samples whose parameters differ while it is traced.
[[noreturn]] void raise_same_of_batched(const c10::OperatorHandle& op);

}  // namespace functorch_ext
