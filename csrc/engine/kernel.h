#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <utility>

#include "engine/overlap.h"
#include "engine/routing.h"
#include "engine/sample_check.h"
#include "engine/views.h"

// The kernel of an operator on wrappers, at both dispatch keys, from one rule.
//
// Everything is a template of the operator's signature, not of the operator: operators with the
// same signature share one instantiation and differ in the pointers that `Operator` holds.
namespace functorch_ext {

template <class Signature>
struct Operator;

template <class Return, class... Parameters>
struct Operator<Return(Parameters...)> {
  using Signature = Return(Parameters...);
  // A batching rule: computes the operator for wrappers of `level`, at least one of them batched.
  using Rule = Return (*)(const Operator&, Level&, Parameters...);
  // The same for rules that need only the arguments.
  using PlainRule = Return (*)(Level&, Parameters...);

  // What the operator is made of: an answer from operators whose derivatives can be batched where
  // those of its own formula can't. It runs before autograd. None where it doesn't apply.
  using Decomposition = std::optional<std::decay_t<Return>> (*)(Level&, Parameters...);

  Return (*call)(Parameters...);  // the operator itself, through the dispatcher
  Return (*redispatch)(c10::DispatchKeySet, Parameters...);
  c10::OperatorHandle handle;
  OperatorTraits traits;
  Rule rule = nullptr;
  PlainRule plain_rule = nullptr;
  Decomposition decomposition = nullptr;
  // Which arguments are dimensions (bit i: argument i), for the rules that shift dimensions.
  uint64_t dims = 0;
  // Asks plain PyTorch about a sample; lives as long as the process.
  SampleCheck* sample_check = new SampleCheck();

  // Raises what plain PyTorch raises for a sample.
  template <class... Arguments>
  void check_sample(const Level& level, Arguments&... arguments) const {
    if (!sample_check->is_off()) {
      ask_about_sample(level, arguments...);
    }
  }
  template <class... Arguments>
  void ask_about_sample(const Level& level, Arguments&... arguments) const {
    sample_check->check(
        [&] {
          return functorch_ext::ask_about_sample(handle, level,
                                                 c10::impl::boxArgs<Parameters...>(arguments...));
        },
        arguments...);
  }

  // Raises what plain PyTorch raises for a sample that is written to where it is read, too.
  template <class Each, class... Arguments>
  void check_overlap(const at::Tensor& written, const Level& level, const Each& each,
                     Arguments&... arguments) const {
    const auto overlap = overlap_of(written, each);
    if (C10_LIKELY(overlap == Overlap::None ||
                   (overlap == Overlap::Itself && sample_check->takes_itself()))) {
      return;
    }
    ask_about_overlap(handle, level, c10::impl::boxArgs<Parameters...>(arguments...));
    if (overlap == Overlap::Itself) {
      sample_check->note_takes_itself();
    }
  }

  // The per-sample loop, for argument combinations that a rule doesn't cover.
  Return loop(Parameters... arguments) const {
    return c10::impl::BoxedKernelWrapper<Signature>::call(loop_kernel(), handle, {},
                                                          std::forward<Parameters>(arguments)...);
  }
};

// Bookkeeping after an operator wrote to some of its arguments.
template <class... Arguments>
inline void after_mutations(const OperatorTraits& traits, const Arguments&... arguments) {
  size_t i = 0;
  const auto bump = [&](const auto& argument) {
    if (traits.written >> i++ & 1) {
      for_each_tensor(argument, [](const at::Tensor& tensor) { after_mutation(tensor); });
    }
  };
  (bump(arguments), ...);
}

// Every tensor of a result as one of `level`.
template <class Result>
inline Result wrap_unbatched(Result&& result, const UnbatchedResults& wrapped,
                             const at::Tensor& source) {
  using Type = std::remove_cv_t<std::remove_reference_t<Result>>;
  if constexpr (std::is_same_v<Type, at::Tensor>) {
    return wrapped(std::move(result), source);
  } else if constexpr (std::is_same_v<Type, std::vector<at::Tensor>>) {
    for (auto& tensor : result) {
      tensor = wrapped(std::move(tensor), source, /*one_of_several=*/true);
    }
  }
  return std::move(result);
}

template <class... Results>
inline std::tuple<Results...> wrap_unbatched(std::tuple<Results...>&& result,
                                             const UnbatchedResults& wrapped,
                                             const at::Tensor& source) {
  return std::apply(
      [&](auto&... part) {
        return std::tuple<Results...>(wrap_unbatched(std::move(part), wrapped, source)...);
      },
      result);
}

// An operator none of whose arguments is batched: computed once on the plane below.
template <class Return, class... Parameters>
inline Return compute_unbatched(const Operator<Return(Parameters...)>& op, const Level& level,
                                Parameters... arguments) {
  const auto below = [&](const at::Tensor& tensor) -> const at::Tensor& {
    return value_of(tensor, level);
  };
  const auto each = [&](auto&& visit) { (for_each_tensor(arguments, visit), ...); };
  if constexpr (std::is_void_v<Return> || std::is_reference_v<Return>) {
    call_rewritten<Return, Parameters...>(op.call, below, std::forward<Parameters>(arguments)...);
    each_written<Return, Parameters...>(
        [&](const at::Tensor& self) { after_unbatched_write(self, level, each); }, arguments...);
    after_mutations(op.traits, arguments...);
    if constexpr (std::is_reference_v<Return>) {
      // In place (or out=): the same tensor comes back.
      return mutated_argument<Return, Parameters...>(arguments...);
    }
  } else {
    after_mutations(op.traits, arguments...);
    const UnbatchedResults wrapped(op.traits, level, each);
    return wrap_unbatched(call_rewritten<Return, Parameters...>(
                              op.call, below, std::forward<Parameters>(arguments)...),
                          wrapped, first_tensor(arguments...));
  }
}

// Notes that no other tensor shares the memory of what a rule returned.
template <class Result>
inline void note_fresh(const Result& result) {
  if constexpr (std::is_same_v<Result, at::Tensor>) {
    if (result.defined() && is_wrapper(result)) {
      wrapper_of(result)->set_fresh(true);
    }
  }
}
template <class... Results>
inline void note_fresh(const std::tuple<Results...>& results) {
  std::apply([](const auto&... result) { (note_fresh(result), ...); }, results);
}

// The kernel object registered with the dispatcher.
template <class Signature>
class Kernel;

template <class Return, class... Parameters>
class Kernel<Return(Parameters...)> final : public c10::OperatorKernel {
 public:
  Kernel(Operator<Return(Parameters...)> op, bool entry) : op_(std::move(op)), entry_(entry) {}

  Return operator()(c10::DispatchKeySet keys, Parameters... arguments) const {
    const auto each = [&](auto&& visit) { (for_each_tensor(arguments, visit), ...); };
    const auto [way, deepest] = arrival_of(keys, each);
    if (C10_UNLIKELY(way != Way::OnLevel)) {
      return go_elsewhere(way, keys, std::forward<Parameters>(arguments)...);
    }
    Level& level = *deepest.level;
    OwnMemoryLock lock;
    if (C10_UNLIKELY(deepest.any_own)) {
      lock.acquire(level);
    }
    if (entry_) {
      const auto step = entry_step(op_.traits, op_.rule, keys, level, each);
      const bool recorded = step == EntryStep::Record;
      if (op_.decomposition && (recorded || !op_.rule) && any_batched(level, each)) {
        op_.check_sample(level, arguments...);
        if constexpr (!std::is_void_v<Return>) {
          if (auto result = op_.decomposition(level, arguments...)) {
            return returned(std::move(*result), arguments...);
          }
        }
      }
      if (recorded) {
        return record(keys, level, std::forward<Parameters>(arguments)...);
      }
      if (step == EntryStep::Decompose) {
        return op_.redispatch(below_entry(keys), std::forward<Parameters>(arguments)...);
      }
    }
    PlaneBelow below(level);
    return compute(level, std::forward<Parameters>(arguments)...);
  }

 private:
  Return go_elsewhere(Way way, c10::DispatchKeySet keys, Parameters... arguments) const {
    if (way == Way::Onwards) {
      return op_.redispatch(keys_below(entry_key, keys), std::forward<Parameters>(arguments)...);
    }
    return call_rewritten<Return, Parameters...>(
        op_.call, way == Way::WithoutEscaped ? &without_escaped : &without_ended_layers,
        std::forward<Parameters>(arguments)...);
  }

  // A decomposition's result: that of an in-place operator is the argument it wrote to.
  template <class Result, class... Arguments>
  static Return returned(Result&& result, Arguments&... arguments) {
    if constexpr (std::is_reference_v<Return>) {
      return mutated_argument<Return, Parameters...>(arguments...);
    } else {
      return std::move(result);
    }
  }

  // Through autocast and autograd of this plane, which call the landing kernel in the end.
  Return record(c10::DispatchKeySet keys, const Level& level, Parameters... arguments) const {
    size_t i = 0;
    const auto track = [&](const auto& argument) {
      const bool written = op_.traits.written >> i++ & 1;
      for_each_tensor(argument, [&](const at::Tensor& tensor) {
        if (wrapper_at(tensor, level)) {
          track_view(tensor, written);
        }
      });
    };
    (track(arguments), ...);
    const auto each = [&](auto&& visit) { (for_each_tensor(arguments, visit), ...); };
    if (op_.traits.mutates) {
      each_written<Return, Parameters...>(
          [&](const at::Tensor& self) { check_recordable(self, level, op_.handle, each); },
          arguments...);
    }
    if (C10_LIKELY(!any_lifts(level, each))) {
      return op_.redispatch(below_entry(keys), std::forward<Parameters>(arguments)...);
    }
    return call_rewritten<Return, Parameters...>(
        [&](Parameters... lifted) -> Return {
          return op_.redispatch(below_entry(keys), std::forward<Parameters>(lifted)...);
        },
        [&](const at::Tensor& tensor) { return lifted(tensor, level); },
        std::forward<Parameters>(arguments)...);
  }

  Return compute(Level& level, Parameters... arguments) const {
    const auto each = [&](auto&& visit) { (for_each_tensor(arguments, visit), ...); };
    const auto computation = computation_of(op_.traits, /*has_rule=*/true, level, each);
    if (C10_UNLIKELY(computation == Computation::OfLevel)) {
      return c10::impl::BoxedKernelWrapper<Return(Parameters...)>::call(
          kernel_of_level(), op_.handle, {}, std::forward<Parameters>(arguments)...);
    }
    if (computation == Computation::Unbatched) {
      return compute_unbatched<Return, Parameters...>(op_, level,
                                                      std::forward<Parameters>(arguments)...);
    }
    op_.check_sample(level, arguments...);
    if constexpr (std::is_same_v<Return, at::Tensor&>) {
      at::Tensor& self = mutated_argument<Return, Parameters...>(arguments...);
      if (!op_.traits.random) {
        check_mutable(self, level, op_.handle);
        op_.check_overlap(self, level, each, arguments...);
      }
      apply_rule(level, arguments...);
      after_mutation(self);
      return self;
    } else if constexpr (std::is_same_v<Return, at::Tensor>) {
      at::Tensor result = apply_rule(level, arguments...);
      if (op_.traits.view) {
        after_view(result, first_tensor(arguments...), op_.traits, /*one_of_several=*/false);
      } else {
        note_fresh(result);
      }
      return result;
    } else if constexpr (std::is_same_v<Return, std::vector<at::Tensor>>) {
      const auto source = first_tensor(arguments...);
      auto results = apply_rule(level, arguments...);
      if (op_.traits.view) {
        for (const auto& view : results) {
          after_view(view, source, op_.traits, /*one_of_several=*/true);
        }
      }
      return results;
    } else if constexpr (std::is_void_v<Return>) {
      apply_rule(level, arguments...);
      after_mutations(op_.traits, arguments...);
    } else {
      after_mutations(op_.traits, arguments...);
      Return results = apply_rule(level, arguments...);
      note_fresh(results);
      return results;
    }
  }

  // The arguments stay: they are needed again if the rule fails.
  template <class... Arguments>
  Return apply_rule(Level& level, Arguments&... arguments) const {
    try {
      return op_.rule(op_, level, arguments...);
    } catch (const c10::Error& error) {
      raise_error_of_sample(error, op_.handle, level,
                            c10::impl::boxArgs<Parameters...>(arguments...));
      throw;
    }
  }

  const Operator<Return(Parameters...)> op_;
  const bool entry_;
};

}  // namespace functorch_ext
