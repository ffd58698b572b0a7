#include "engine/boxed.h"

#include <ATen/ops/stack.h>

#include "engine/randomness.h"
#include "engine/registration.h"
#include "engine/views.h"

namespace functorch_ext {

namespace {

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

template <class Change>
c10::IValue rewrite_value(const c10::IValue& value, Change&& change) {
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

DeepestLevel deepest_level(const c10::OperatorHandle& op, const Stack& stack) {
  DeepestLevel deepest;
  for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) { deepest(tensor); });
  return deepest;
}

bool any_tensor(const c10::OperatorHandle& op, const Stack& stack,
                const std::function<bool(const at::Tensor&)>& holds) {
  bool found = false;
  for_each_tensor_on_stack(op, stack,
                           [&](const at::Tensor& tensor) { found = found || holds(tensor); });
  return found;
}

// An operator that returns an argument it wrote to gives back the wrapper that came in.
void restore_mutated(const c10::OperatorHandle& op, const std::vector<c10::IValue>& arguments,
                     Stack& stack, const Level& level) {
  const auto& schema = op.schema();
  const auto first_result = stack.size() - schema.returns().size();
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (!alias || !alias->isWrite()) {
      continue;
    }
    visit_tensors(arguments[i], [&](const at::Tensor& tensor) {
      if (auto* wrapper = wrapper_at(tensor, level)) {
        wrapper->refresh();
        after_mutation(tensor);
      }
    });
    for (size_t r = 0; r < schema.returns().size(); ++r) {
      const auto* result_alias = schema.returns()[r].alias_info();
      if (result_alias && result_alias->isWrite() && *result_alias == *alias) {
        stack[first_result + r] = arguments[i];
      }
    }
  }
}

// The results of a view share memory with its argument.
void share_results(const std::vector<c10::IValue>& arguments, const Stack& stack, size_t results) {
  for (const auto& argument : arguments) {
    visit_tensors(argument, [&](const at::Tensor& source) {
      for (auto i = stack.size() - results; i < stack.size(); ++i) {
        visit_tensors(stack[i], [&](const at::Tensor& view) {
          share_memory(view, source);
          share_version_counter(view, source);
        });
      }
    });
  }
}

void compute_unbatched_boxed(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto arguments = op.schema().arguments().size();
  const auto results = op.schema().returns().size();
  const std::vector<c10::IValue> given(stack->end() - arguments, stack->end());
  rewrite_stack(*stack, arguments,
                [&](const at::Tensor& tensor) { return value_of(tensor, level); });
  op.callBoxed(stack);
  rewrite_stack(*stack, results,
                [&](const at::Tensor& tensor) { return wrap(tensor, no_bdim, level); });
  if (OperatorTraits::of(op).view) {
    share_results(given, *stack, results);
  }
  if (op.schema().is_mutable()) {
    restore_mutated(op, given, *stack, level);
  }
}

GivenRule given_rule = nullptr;

void check_written_arguments(const c10::OperatorHandle& op, const Stack& stack,
                             const Level& level) {
  const auto& arguments = op.schema().arguments();
  const auto offset = stack.size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto* alias = arguments[i].alias_info();
    if (alias && alias->isWrite()) {
      visit_tensors(stack[offset + i],
                    [&](const at::Tensor& tensor) { check_mutable(tensor, level, op); });
    }
  }
}

void compute_batched(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto traits = OperatorTraits::of(op);
  // Those that were there when we were imported have been seen to already.
  if (traits.random && !op.hasKernelForDispatchKey(randomness_key)) {
    check_randomness_allowed(level, op);
    if (level.randomness == Randomness::Same) {
      raise_same_of_batched(op);
    }
  }
  const std::vector<c10::IValue> given(stack->end() - op.schema().arguments().size(), stack->end());
  if (traits.mutates) {
    check_written_arguments(op, *stack, level);
  }
  if (!given_rule || !given_rule(op, level, stack)) {
    per_sample_loop(op, {}, stack);
  } else if (traits.mutates) {
    restore_mutated(op, given, *stack, level);
  }
}

void compute_boxed(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  if (level.kind == LevelKind::Functional) {
    functional_operator(op, {}, stack);
  } else if (any_tensor(op, *stack,
                        [&](const at::Tensor& tensor) { return is_batched_at(tensor, level); })) {
    compute_batched(op, level, stack);
  } else {
    compute_unbatched_boxed(op, level, stack);
  }
}

// Calls the operator again with tensors that outlived their transforms replaced.
bool handle_outlived(const c10::OperatorHandle& op, const DeepestLevel& deepest, Stack* stack) {
  if (!deepest.any_outlived) {
    return false;
  }
  rewrite_stack(*stack, op.schema().arguments().size(), resolve_outlived);
  op.callBoxed(stack);
  return true;
}

FallbackWarner fallback_warner = nullptr;

void warn_of_loop(const c10::OperatorHandle& op) {
  if (!fallback_warner) {
    return;
  }
  std::string name = op.schema().name();
  if (!op.schema().overload_name().empty()) {
    name += "." + op.schema().overload_name();
  }
  fallback_warner("no batching rule for " + name +
                  ": it runs once per sample in a loop, which is right but slow.");
}

void check_loop_is_possible(const c10::OperatorHandle& op) {
  const auto& schema = op.schema();
  const auto traits = OperatorTraits::of(op);
  TORCH_CHECK(!traits.view, "functorch_ext.vmap: ", op.operator_name(),
              " returns a view and has no batching rule, so its result can't share memory with its "
              "argument. Use a variant that copies.");
  TORCH_CHECK(!traits.dynamic_shape, "functorch_ext.vmap: the shape of the result of ",
              op.operator_name(),
              " depends on the data, so it may differ between samples. Use a form with a static "
              "shape: torch.where(mask, x, fill) instead of selecting by a mask, or the operator "
              "outside vmap.");
  bool returns_tensor = traits.mutates;
  for (const auto& result : schema.returns()) {
    returns_tensor = returns_tensor || result.type()->isSubtypeOf(*c10::TensorType::get()) ||
                     result.type()->isSubtypeOf(*c10::ListType::ofTensors());
  }
  TORCH_CHECK(
      returns_tensor, "functorch_ext.vmap: ", op.operator_name(),
      " reads the value of a batched tensor into Python (as .item(), bool(), int() or an if "
      "statement on a tensor do), but the samples may differ. Use torch.where or another tensor "
      "operation instead.");
}

}  // namespace

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

void boxed_entry(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const auto deepest = deepest_level(op, *stack);
  if (handle_outlived(op, deepest, stack)) {
    return;
  }
  const Level& level = *deepest.level;
  const auto traits = OperatorTraits::of(op);
  const bool differentiates =
      routes_through_autograd(traits, keys, level) ||
      (differentiates_at_all(keys, level) && any_tensor(op, *stack, [&](const at::Tensor& tensor) {
         const auto* wrapper = wrapper_at(tensor, level);
         return wrapper && (is_differentiated(tensor) || (c10::GradMode::is_enabled() &&
                                                          is_differentiated_by_its_base(*wrapper)));
       }));
  if (differentiates) {
    const auto count = op.schema().arguments().size();
    for (size_t i = 0; i < count; ++i) {
      visit_tensors((*stack)[stack->size() - count + i], [&](const at::Tensor& tensor) {
        if (wrapper_at(tensor, level)) {
          track_view(tensor, /*written=*/traits.written >> i & 1);
        }
      });
    }
    rewrite_stack(*stack, count, [&](const at::Tensor& tensor) {
      return needs_lift(tensor, level) ? lifted(tensor, level) : tensor;
    });
  }
  if (differentiates || traits.composite) {
    ensure_landing(op);
    op.redispatchBoxed(below_entry(keys), stack);
    return;
  }
  PlaneBelow below(*deepest.level);
  compute_boxed(op, level, stack);
}

void boxed_landing(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const auto deepest = deepest_level(op, *stack);
  if (handle_outlived(op, deepest, stack)) {
    return;
  }
  PlaneBelow below(*deepest.level);
  compute_boxed(op, *deepest.level, stack);
}

void per_sample_loop(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const auto& schema = op.schema();
  const auto argument_count = schema.arguments().size();
  const auto result_count = schema.returns().size();
  const Level& level = *deepest_level(op, *stack).level;
  check_loop_is_possible(op);
  check_written_arguments(op, *stack, level);
  warn_of_loop(op);

  const auto samples = level.batch_size.guard_int(__FILE__, __LINE__);
  const std::vector<c10::IValue> given(stack->end() - argument_count, stack->end());
  torch::jit::drop(*stack, argument_count);

  std::vector<std::vector<c10::IValue>> results(result_count);
  // Without samples, one of zeros tells the shapes of the results.
  for (int64_t sample = 0; sample < std::max<int64_t>(samples, 1); ++sample) {
    Stack call;
    for (const auto& argument : given) {
      call.push_back(rewrite_value(argument, [&](const at::Tensor& tensor) {
        const auto& value = value_of(tensor, level);
        const auto bdim = bdim_of(tensor, level);
        if (bdim == no_bdim) {
          return value;
        }
        if (samples == 0) {
          return value.new_zeros_symint(tensor.sym_sizes());
        }
        // Kernels may rely on the memory of a tensor of its own; a write has to reach the value.
        const auto one = value.select(bdim, sample);
        return schema.is_mutable() ? one : one.contiguous();
      }));
    }
    op.callBoxed(&call);
    for (size_t r = 0; r < result_count; ++r) {
      results[r].push_back(std::move(call[r]));
    }
  }

  const auto stacked = [&](const std::vector<at::Tensor>& tensors) -> at::Tensor {
    if (!tensors[0].defined()) {
      return tensors[0];
    }
    for (const auto& tensor : tensors) {
      TORCH_CHECK(tensor.sizes() == tensors[0].sizes(),
                  "functorch_ext.vmap: the shape of the result of ", op.operator_name(),
                  " depends on the data and differs between samples (", tensors[0].sizes(), " and ",
                  tensor.sizes(), "). Use an operation whose result has a static shape.");
    }
    return wrap(at::stack(tensors).narrow(0, 0, samples), 0, level);
  };
  for (size_t r = 0; r < result_count; ++r) {
    const auto& first = results[r][0];
    std::vector<at::Tensor> tensors;
    if (first.isTensor()) {
      for (const auto& result : results[r]) {
        tensors.push_back(result.toTensor());
      }
      stack->push_back(stacked(tensors));
    } else if (first.isTensorList()) {
      c10::List<at::Tensor> list;
      for (size_t element = 0; element < first.toTensorList().size(); ++element) {
        tensors.clear();
        for (const auto& result : results[r]) {
          tensors.push_back(result.toTensorList().get(element));
        }
        list.push_back(stacked(tensors));
      }
      stack->push_back(std::move(list));
    } else {
      for (const auto& result : results[r]) {
        TORCH_CHECK(result == first, "functorch_ext.vmap: ", op.operator_name(),
                    " returns a value that is not a tensor and differs between samples.");
      }
      stack->push_back(first);
    }
  }
  if (schema.is_mutable()) {
    restore_mutated(op, given, *stack, level);
  }
}

void set_given_rule(GivenRule rule) {
  given_rule = rule;
}

void set_fallback_warner(FallbackWarner warner) {
  fallback_warner = warner;
}

c10::BoxedKernel loop_kernel() {
  return c10::BoxedKernel::makeFromFunction<&per_sample_loop>();
}

c10::BoxedKernel functional_kernel() {
  return c10::BoxedKernel::makeFromFunction<&functional_operator>();
}

}  // namespace functorch_ext
