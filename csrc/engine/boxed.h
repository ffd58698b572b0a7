#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include "engine/routing.h"

// Kernels that serve any operator, working on a stack of IValues instead of typed arguments.
namespace functorch_ext {

using Stack = torch::jit::Stack;

// The tensors among `op`'s arguments on top of the stack: visit(tensor) for each defined one.
void for_each_tensor_on_stack(const c10::OperatorHandle& op, const Stack& stack,
                              const std::function<void(const at::Tensor&)>& visit);

// Replaces each defined tensor among the top `count` values of the stack by change(tensor).
void rewrite_stack(Stack& stack, size_t count,
                   const std::function<at::Tensor(const at::Tensor&)>& change);

// The entry and landing kernels of operators that have no typed kernel.
void boxed_entry(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);
void boxed_landing(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// The operator on one sample after another: right for everything, and slow, so it warns.
void per_sample_loop(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// functionalize's kernel for any operator.
void functional_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack);

// A batching rule given at run time, for an operator without a compiled one: set by the bindings,
// which reach Python's rules. False if there is none.
using GivenRule = bool (*)(const c10::OperatorHandle& op, const Level& level, Stack* stack);
void set_given_rule(GivenRule rule);

// How the per-sample loop reports itself: set by the bindings, which reach Python's warnings.
using FallbackWarner = void (*)(const std::string& message);
void set_fallback_warner(FallbackWarner warner);

}  // namespace functorch_ext
