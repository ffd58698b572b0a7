#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <functional>

// Reading and rewriting the tensors in an operator's argument list, on a stack of IValues.
namespace functorch_ext {

using Stack = torch::jit::Stack;

// The tensors of one value: visit(tensor) for each defined one.
template <class Visit>
void visit_tensors(const c10::IValue& value, Visit&& visit) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) {
      visit(value.toTensor());
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      visit_tensors(element, visit);
    }
  }
}

template <class Visit>
void for_each_tensor_in(c10::ArrayRef<c10::IValue> arguments, Visit&& visit) {
  for (const auto& argument : arguments) {
    visit_tensors(argument, visit);
  }
}

// The same value with each defined tensor replaced by change(tensor).
c10::IValue rewrite_value(const c10::IValue& value,
                          const std::function<at::Tensor(const at::Tensor&)>& change);

// The tensors among `op`'s arguments on top of the stack: visit(tensor) for each defined one.
void for_each_tensor_on_stack(const c10::OperatorHandle& op, const Stack& stack,
                              const std::function<void(const at::Tensor&)>& visit);

// Replaces each defined tensor among the top `count` values of the stack by change(tensor).
void rewrite_stack(Stack& stack, size_t count,
                   const std::function<at::Tensor(const at::Tensor&)>& change);

// The arguments, the last values on the stack, that `op` writes to: visit(tensor) for each.
void for_each_written(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                      const std::function<void(const at::Tensor&)>& visit);

// An operator that returns arguments it wrote to gives back the tensors that came in.
void restore_written(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                     Stack& stack);

}  // namespace functorch_ext
