#include "engine/stack.h"

namespace functorch_ext {

c10::IValue rewrite_value(const c10::IValue& value,
                          const std::function<at::Tensor(const at::Tensor&)>& change) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? c10::IValue(change(value.toTensor())) : value;
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> tensors;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      tensors.push_back(tensor.defined() ? change(tensor) : tensor);
    }
    return tensors;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> tensors;
    for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
      tensors.push_back(tensor && tensor->defined() ? std::optional(change(*tensor)) : tensor);
    }
    return tensors;
  }
  return value;
}

void for_each_tensor_on_stack(const c10::OperatorHandle& op, const Stack& stack,
                              const std::function<void(const at::Tensor&)>& visit) {
  for (auto i = stack.size() - op.schema().arguments().size(); i < stack.size(); ++i) {
    visit_tensors(stack[i], visit);
  }
}

void rewrite_stack(Stack& stack, size_t count,
                   const std::function<at::Tensor(const at::Tensor&)>& change) {
  for (auto i = stack.size() - count; i < stack.size(); ++i) {
    stack[i] = rewrite_value(stack[i], change);
  }
}

void for_each_written(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                      const std::function<void(const at::Tensor&)>& visit) {
  const auto& formal = op.schema().arguments();
  for (size_t i = 0; i < formal.size(); ++i) {
    const auto* alias = formal[i].alias_info();
    if (alias && alias->isWrite()) {
      visit_tensors(arguments[i], visit);
    }
  }
}

void restore_written(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                     Stack& stack) {
  const auto& formal = op.schema().arguments();
  const auto& returns = op.schema().returns();
  const auto first_result = stack.size() - returns.size();
  for (size_t i = 0; i < formal.size(); ++i) {
    const auto* alias = formal[i].alias_info();
    if (!alias || !alias->isWrite()) {
      continue;
    }
    for (size_t r = 0; r < returns.size(); ++r) {
      const auto* result_alias = returns[r].alias_info();
      if (result_alias && result_alias->isWrite() && *result_alias == *alias) {
        stack[first_result + r] = arguments[i];
      }
    }
  }
}

}  // namespace functorch_ext
