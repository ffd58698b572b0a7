#include "engine/boxed.h"

#include "engine/randomness.h"
#include "engine/registration.h"

namespace functorch_ext {

namespace {

auto each_on(const c10::OperatorHandle& op, const Stack& stack) {
  return [&](auto&& visit) {
    for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) { visit(tensor); });
  };
}

// Among some arguments.
auto each_of(c10::ArrayRef<c10::IValue> arguments) {
  return [=](auto&& visit) { for_each_tensor_in(arguments, visit); };
}

// Whose memory a result shares: that of a view's argument, or of one that a custom operator returns
// as it is, against the rules. Undefined if it is new.
at::Tensor source_of(const at::Tensor& result, bool is_view, c10::ArrayRef<c10::IValue> arguments,
                     const Level& level) {
  at::Tensor source;
  each_of(arguments)([&](const at::Tensor& tensor) {
    const auto& value = value_of(tensor, level);
    if (!source.defined() &&
        (is_view || (result.has_storage() && value.has_storage() && result.is_alias_of(value)))) {
      source = tensor;
    }
  });
  return source;
}

void compute_unbatched_boxed(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto& schema = op.schema();
  const auto arguments = schema.arguments().size();
  const std::vector<c10::IValue> given(stack->end() - arguments, stack->end());
  rewrite_stack(*stack, arguments,
                [&](const at::Tensor& tensor) { return value_of(tensor, level); });
  op.callBoxed(stack);
  const auto traits = OperatorTraits::of(op);
  const UnbatchedResults new_ones(traits, level, each_of(given));
  OperatorTraits of_view;
  of_view.view = true;
  const UnbatchedResults views(of_view, level, each_of(given));
  rewrite_stack(*stack, schema.returns().size(), [&](const at::Tensor& result) {
    const auto source = source_of(result, traits.view, given, level);
    return source.defined() ? views(at::Tensor(result), source)
                            : new_ones(at::Tensor(result), source);
  });
  if (schema.is_mutable()) {
    for_each_written(op, given, [&](const at::Tensor& self) {
      after_unbatched_write(self, level, each_of(given));
    });
    after_boxed_write(op, given, level);
    restore_written(op, given, *stack);
  }
}

GivenRule given_rule = nullptr;

void compute_batched(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto traits = OperatorTraits::of(op);
  // Those that were there when we were imported have been seen to already.
  if (traits.random && !op.hasKernelForDispatchKey(randomness_key)) {
    check_randomness_allowed(level, op);
    if (level.randomness == Randomness::Same) {
      raise_same_of_batched(op);
    }
  }
  if (traits.mutates && compute_and_write(op, level, stack)) {
    return;
  }
  const std::vector<c10::IValue> given(stack->end() - op.schema().arguments().size(), stack->end());
  for_each_written(op, given, [&](const at::Tensor& self) { check_mutable(self, level, op); });
  if (!given_rule || !given_rule(op, level, stack)) {
    per_sample_loop(op, {}, stack);
  } else if (traits.mutates) {
    after_boxed_write(op, given, level);
    restore_written(op, given, *stack);
  }
}

void compute_boxed(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  switch (computation_of(OperatorTraits::of(op), /*has_rule=*/false, level, each_on(op, *stack))) {
    case Computation::OfLevel:
      level.compute(op, stack);
      break;
    case Computation::Unbatched:
      compute_unbatched_boxed(op, level, stack);
      break;
    case Computation::Batched:
      compute_batched(op, level, stack);
  }
}

void go_elsewhere(Way way, const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (way == Way::Onwards) {
    op.redispatchBoxed(keys_below(entry_key, keys), stack);
    return;
  }
  rewrite_stack(*stack, op.schema().arguments().size(),
                way == Way::WithoutEscaped ? without_escaped : without_ended_layers);
  op.callBoxed(stack);
}

// Tells autograd of the views among the arguments, and lifts those of lower planes.
void prepare_recording(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto arguments = op.schema().arguments().size();
  for_each_written(op, torch::jit::last(*stack, arguments), [&](const at::Tensor& self) {
    check_recordable(self, level, op, each_on(op, *stack));
    if (wrapper_at(self, level)) {
      track_view(self, /*written=*/true);
    }
  });
  for_each_tensor_on_stack(op, *stack, [&](const at::Tensor& tensor) {
    if (wrapper_at(tensor, level)) {
      track_view(tensor, /*written=*/false);
    }
  });
  rewrite_stack(*stack, arguments, [&](const at::Tensor& tensor) { return lifted(tensor, level); });
}

void computed_by_level(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  deepest_level(op, *stack).level->compute(op, stack);
}

// An operator that PyTorch makes of others. Its own checks may print a tensor, which wrappers
// can't.
void decompose(const c10::OperatorHandle& op, c10::DispatchKeySet keys, const Level& level,
               Stack* stack) {
  const auto arguments = torch::jit::last(*stack, op.schema().arguments().size()).vec();
  try {
    op.redispatchBoxed(below_entry(keys), stack);
  } catch (const c10::Error& error) {
    raise_error_of_sample(error, op, level, arguments);
    throw;
  }
}

}  // namespace

DeepestLevel deepest_level(const c10::OperatorHandle& op, const Stack& stack) {
  DeepestLevel deepest;
  for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) { deepest(tensor); });
  return deepest;
}

bool call_without_ended_layers(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                               Stack* stack) {
  if (C10_LIKELY(!keys.has(c10::DispatchKey::FuncTorchGradWrapper)) ||
      !any_tensor(each_on(op, *stack), is_of_ended_layer)) {
    return false;
  }
  rewrite_stack(*stack, op.schema().arguments().size(), without_ended_layers);
  op.callBoxed(stack);
  return true;
}

// Calls `compute` with the deepest level among the arguments, if an operator that has come to one
// of the engine's keys belongs there.
template <class Compute>
void arrive(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack,
            Compute&& compute) {
  const auto [way, deepest] = arrival_of(keys, each_on(op, *stack));
  if (way != Way::OnLevel) {
    go_elsewhere(way, op, keys, stack);
    return;
  }
  const Level& level = *deepest.level;
  OwnMemoryLock lock;
  if (deepest.any_own) {
    lock.acquire(level);
  }
  compute(level);
}

void enter_boxed(const c10::OperatorHandle& op, c10::DispatchKeySet keys, const Level& level,
                 Stack* stack) {
  const auto traits = OperatorTraits::of(op);
  const auto step = entry_step(traits, /*has_rule=*/false, keys, level, each_on(op, *stack));
  if (step == EntryStep::Record) {
    prepare_recording(op, level, stack);
  }
  if (step == EntryStep::Compute) {
    PlaneBelow below(level);
    compute_boxed(op, level, stack);
  } else if (!traits.composite) {
    ensure_landing(op);
    op.redispatchBoxed(below_entry(keys), stack);
  } else {
    // What it is made of would write to tensors of its own, too.
    const bool writes =
        traits.mutates && step == EntryStep::Decompose && any_batched(level, each_on(op, *stack));
    if (!writes || !compute_and_write(op, level, stack)) {
      decompose(op, keys, level, stack);
    }
  }
}

void boxed_entry(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  arrive(op, keys, stack, [&](const Level& level) { enter_boxed(op, keys, level, stack); });
}

void boxed_landing(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  arrive(op, keys, stack, [&](const Level& level) {
    PlaneBelow below(level);
    compute_boxed(op, level, stack);
  });
}

void after_boxed_write(const c10::OperatorHandle& op, c10::ArrayRef<c10::IValue> arguments,
                       const Level& level) {
  for_each_written(op, arguments, [&](const at::Tensor& self) {
    if (auto* wrapper = wrapper_at(self, level)) {
      wrapper->refresh();
      after_mutation(self);
    }
  });
}

void set_given_rule(GivenRule rule) {
  given_rule = rule;
}

c10::BoxedKernel kernel_of_level() {
  return c10::BoxedKernel::makeFromFunction<&computed_by_level>();
}

}  // namespace functorch_ext
