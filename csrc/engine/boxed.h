#pragma once

#include "engine/arguments.h"
#include "engine/routing.h"
#include "engine/stack.h"

// Kernels that serve any operator, working on a stack of IValues instead of typed arguments.
namespace functorch_ext {

// The deepest level among an operator's arguments.
DeepestLevel deepest_level(const c10::OperatorHandle& op, const Stack& stack);

// The entry and landing kernels of operators that have no typed kernel.
void boxed_entry(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);
void boxed_landing(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// Calls the operator again with tensors replaced that escaped a transform of torch.func's. False
// if there are none.
bool call_without_ended_layers(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                               Stack* stack);

// Bookkeeping after an operator wrote to some of the arguments.
void after_boxed_write(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                       const Level& level);

// The operator on one sample after another: right for everything, and slow, so it warns.
void per_sample_loop(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// An operator with out= arguments, at least one argument batched: as the operator without them,
// whose results are written there. False if PyTorch has none.
bool compute_and_write(const c10::OperatorHandle& op, const Level& level, Stack* stack);

// A batching rule given at run time, for an operator without a compiled one: set by the bindings,
// which reach Python's rules. False if there is none.
using GivenRule = bool (*)(const c10::OperatorHandle& op, const Level& level, Stack* stack);
void set_given_rule(GivenRule rule);

// How the per-sample loop reports itself: set by the bindings, which reach Python's warnings.
using FallbackWarner = void (*)(const std::string& message);
void set_fallback_warner(FallbackWarner warner);
void warn_of_loop(const c10::OperatorHandle& op);

}  // namespace functorch_ext
