#pragma once

#include <ATen/core/IListRef.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <tuple>
#include <type_traits>
#include <vector>

#include "engine/wrapper.h"

// Reading and rewriting the tensors in an operator's argument list, at compile time.
namespace functorch_ext {

using OptionalTensors = c10::List<std::optional<at::Tensor>>;

// for_each_tensor(argument, visit): visit(tensor) for each defined tensor that an argument holds.
template <class Argument, class Visit>
inline void for_each_tensor(const Argument& argument, Visit&& visit) {
  using Type = std::remove_cv_t<std::remove_reference_t<Argument>>;
  if constexpr (std::is_same_v<Type, at::Tensor>) {
    if (argument.defined()) {
      visit(argument);
    }
  } else if constexpr (std::is_same_v<Type, std::optional<at::Tensor>>) {
    if (argument && argument->defined()) {
      visit(*argument);
    }
  } else if constexpr (std::is_same_v<Type, at::TensorList> ||
                       std::is_same_v<Type, at::ITensorListRef>) {
    for (const at::Tensor& tensor : argument) {
      if (tensor.defined()) {
        visit(tensor);
      }
    }
  } else if constexpr (std::is_same_v<Type, OptionalTensors>) {
    for (size_t i = 0; i < argument.size(); ++i) {
      const std::optional<at::Tensor> tensor = argument.get(i);
      if (tensor && tensor->defined()) {
        visit(*tensor);
      }
    }
  }
}

// The storage that holds a rewritten argument of parameter type `Parameter` during a call.
template <class Parameter>
struct Rewritten {
  using type = Parameter;  // not a tensor: passed on as it is
};
template <>
struct Rewritten<const at::Tensor&> {
  using type = at::Tensor;
};
template <>
struct Rewritten<at::Tensor&> {
  using type = at::Tensor;
};
template <>
struct Rewritten<at::TensorList> {
  using type = std::vector<at::Tensor>;
};
template <>
struct Rewritten<const at::ITensorListRef&> {
  using type = std::vector<at::Tensor>;
};
template <>
struct Rewritten<const std::optional<at::Tensor>&> {
  using type = std::optional<at::Tensor>;
};
template <>
struct Rewritten<const OptionalTensors&> {
  using type = OptionalTensors;
};

// The same for a change that gives a reference to a tensor, which needs no copy unless it is to be
// written to.
template <class Parameter, class Change>
using RewrittenBy = std::conditional_t<
    std::is_same_v<Parameter, const at::Tensor&> &&
        std::is_lvalue_reference_v<std::invoke_result_t<Change&, const at::Tensor&>>,
    const at::Tensor&, typename Rewritten<Parameter>::type>;

// rewrite<Parameter>(argument, change): the argument with each defined tensor t replaced by
// change(t).
template <class Parameter, class Change>
inline RewrittenBy<Parameter, Change> rewrite(Parameter argument, Change&& change) {
  using Type = std::remove_cv_t<std::remove_reference_t<Parameter>>;
  if constexpr (std::is_same_v<Type, at::Tensor>) {
    return argument.defined() ? change(argument) : argument;
  } else if constexpr (std::is_same_v<Type, std::optional<at::Tensor>>) {
    if (!argument || !argument->defined()) {
      return argument;
    }
    return change(*argument);
  } else if constexpr (std::is_same_v<Type, at::TensorList> ||
                       std::is_same_v<Type, at::ITensorListRef>) {
    std::vector<at::Tensor> tensors;
    tensors.reserve(argument.size());
    for (const at::Tensor& tensor : argument) {
      tensors.push_back(tensor.defined() ? change(tensor) : tensor);
    }
    return tensors;
  } else if constexpr (std::is_same_v<Type, OptionalTensors>) {
    OptionalTensors tensors;
    tensors.reserve(argument.size());
    for (size_t i = 0; i < argument.size(); ++i) {
      std::optional<at::Tensor> tensor = argument.get(i);
      if (tensor && tensor->defined()) {
        tensor = change(*tensor);
      }
      tensors.push_back(std::move(tensor));
    }
    return tensors;
  } else {
    return std::forward<Parameter>(argument);
  }
}

// Calls `function` with the rewritten arguments, each passed as the parameter type it has.
template <class Return, class... Parameters, class Function, class Change>
inline Return call_rewritten(Function&& function, Change&& change, Parameters... arguments) {
  // Braces: the elements are made from left to right.
  std::tuple<RewrittenBy<Parameters, Change>...> rewritten{
      rewrite<Parameters>(std::forward<Parameters>(arguments), change)...};
  return std::apply(
      [&](auto&... argument) -> Return { return function(static_cast<Parameters>(argument)...); },
      rewritten);
}

// The deepest running level among the arguments; null if every wrapper among them escaped its
// transform. `any_escaped` is set if any did, `any_own` if any was made inside its transform.
struct DeepestLevel {
  Level* level = nullptr;
  bool any_escaped = false;
  bool any_own = false;

  void operator()(const at::Tensor& tensor) {
    if (!is_wrapper(tensor)) {
      return;
    }
    const auto* wrapper = wrapper_of(tensor);
    Level& candidate = wrapper->level();
    any_own = any_own || wrapper->is_own();
    if (C10_UNLIKELY(!candidate.is_running())) {
      any_escaped = true;
    } else if (!level || candidate.depth > level->depth) {
      level = &candidate;
    } else if (C10_UNLIKELY(candidate.depth == level->depth && &candidate != level)) {
      refuse_foreign_tensor();
    }
  }
};

}  // namespace functorch_ext
