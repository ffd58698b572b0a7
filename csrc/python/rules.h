#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "engine/level.h"

namespace functorch_ext {

// Computes an operator by the batching rule that Python has for it (see
// functorch_ext/batching_rules.py); false if it has none.
bool apply_python_rule(const c10::OperatorHandle& op, const Level& level, torch::jit::Stack* stack);

}  // namespace functorch_ext
