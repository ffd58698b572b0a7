#pragma once

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <utility>

#include "engine/arguments.h"
#include "engine/keys.h"
#include "engine/own_memory.h"
#include "engine/torch_func.h"
#include "engine/views.h"

// Which way an operator goes: the decisions that entry and landing kernels share, typed and boxed.
//
// Where a decision depends on the arguments, it takes `each`: each(visit) calls visit(tensor) for
// every defined tensor among them.
namespace functorch_ext {

// What an operator's schema and registrations tell of it.
struct OperatorTraits {
  bool composite = false;      // CompositeImplicitAutograd: made of other operators
  bool view = false;           // its result aliases an argument that it doesn't write to
  bool tracked_view = false;   // ... and its derivative too (detach has none)
  bool mutates = false;        // it writes to an argument
  bool random = false;         // it draws random numbers
  bool dynamic_shape = false;  // the shape of its result depends on the values of its arguments
  uint64_t written = 0;        // bit i: it writes to argument i, as autograd counts writes

  static OperatorTraits of(const c10::OperatorHandle& op);
};

// The keys an operator goes on with after the entry kernel: autocast, autograd, then landing. Keys
// of plain arguments (sparse, conjugate, zero tensor, ...) take part below, with the values.
inline c10::DispatchKeySet below_entry(c10::DispatchKeySet keys) {
  constexpr auto kept = c10::DispatchKeySet({c10::DispatchKey::AutogradOther,
                                             c10::DispatchKey::ADInplaceOrView, landing_key}) |
                        c10::autocast_dispatch_keyset;
  return keys & kept;
}

// Can an operator with these keys be differentiated on this plane? Not if autograd is excluded, nor
// if it is a part of a rule for the same plane.
bool differentiates_at_all(c10::DispatchKeySet keys, const Level& level);

// Does a transform that runs on this plane record all its operators, or this one at least?
bool transform_records(const OperatorTraits& traits, const Level& level);
inline bool is_recorded(const OperatorTraits& traits, const Level& level) {
  return (level.forward_running.load(std::memory_order_relaxed) |
          level.reverse_running.load(std::memory_order_relaxed)) != 0 &&
         transform_records(traits, level);
}

// Does a derivative flow through this tensor on its own plane?
bool has_derivative(const at::Tensor& tensor);
inline bool is_differentiated(const at::Tensor& tensor) {
  // What autograd keeps of a tensor, both modes of it.
  const auto* impl = tensor.unsafeGetTensorImpl();
  return C10_UNLIKELY(impl->autograd_meta() != nullptr) && has_derivative(tensor);
}

// A tensor of a lower plane that autograd of `level`'s plane must not look into: it takes part
// as a constant, wrapped.
bool needs_lift(const at::Tensor& tensor, const Level& level);

// Does `holds(tensor)` for any of them?
template <class Each, class Holds>
inline bool any_tensor(const Each& each, const Holds& holds) {
  bool found = false;
  each([&](const at::Tensor& tensor) { found = found || holds(tensor); });
  return found;
}

template <class Each>
inline bool any_batched(const Level& level, const Each& each) {
  return any_tensor(each, [&](const at::Tensor& tensor) { return is_batched_at(tensor, level); });
}

template <class Each>
inline bool any_differentiated_at(const Level& level, const Each& each) {
  return any_tensor(each, [&](const at::Tensor& tensor) {
    const auto* wrapper = wrapper_at(tensor, level);
    return wrapper && (is_differentiated(tensor) ||
                       (is_differentiated_by_its_base(*wrapper) && c10::GradMode::is_enabled()));
  });
}

// Does an operator with these arguments have to pass through autograd or autocast?
template <class Each>
inline bool differentiates(const OperatorTraits& traits, c10::DispatchKeySet keys,
                           const Level& level, const Each& each) {
  return keys.has_any(c10::autocast_dispatch_keyset) ||
         (differentiates_at_all(keys, level) &&
          (is_recorded(traits, level) || any_differentiated_at(level, each)));
}

// Where an operator goes that comes to one of our kernels.
enum class Way : uint8_t {
  OnLevel,         // what the deepest level among its arguments makes of it
  WithoutEscaped,  // called again with what those arguments stand for that escaped their transform
  WithoutEndedLayer,  // the same for those that escaped a transform of torch.func's
  Onwards,            // past our keys: an argument took over those of a wrapper
};
struct Arrival {
  Way way = Way::OnLevel;
  DeepestLevel deepest;
};
template <class Each>
inline Arrival arrival_of(c10::DispatchKeySet keys, const Each& each) {
  Arrival arrival;
  if (C10_UNLIKELY(keys.has_any(torch_func_wrappers))) {
    if (any_tensor(each, is_of_ended_layer)) {
      arrival.way = Way::WithoutEndedLayer;
      return arrival;
    }
    if (!any_tensor(each, is_wrapper)) {
      arrival.way = Way::Onwards;
      return arrival;
    }
  }
  each(arrival.deepest);
  if (C10_UNLIKELY(arrival.deepest.any_escaped)) {
    arrival.way = Way::WithoutEscaped;
  }
  return arrival;
}

// What the entry kernel does with it.
enum class EntryStep : uint8_t {
  Record,     // autocast and autograd first, which call the landing kernel in the end
  Decompose,  // to the operators that PyTorch makes it of
  Compute,    // at once
};
template <class Each>
inline EntryStep entry_step(const OperatorTraits& traits, bool has_rule, c10::DispatchKeySet keys,
                            const Level& level, const Each& each) {
  if (differentiates(traits, keys, level, each)) {
    return EntryStep::Record;
  }
  return traits.composite && (!has_rule || level.computes_operators) ? EntryStep::Decompose
                                                                     : EntryStep::Compute;
}

// Who computes it on the plane below.
enum class Computation : uint8_t {
  OfLevel,    // the level by itself
  Unbatched,  // the operator, once
  Batched,    // a rule or the loop over samples
};
template <class Each>
inline Computation computation_of(const OperatorTraits& traits, bool has_rule, const Level& level,
                                  const Each& each) {
  if (C10_UNLIKELY(level.computes_operators)) {
    return Computation::OfLevel;
  }
  const bool draws = has_rule && traits.random && level.has_samples;
  return draws || any_batched(level, each) ? Computation::Batched : Computation::Unbatched;
}

template <class Each>
inline bool any_lifts(const Level& level, const Each& each) {
  return any_tensor(each, [&](const at::Tensor& tensor) { return needs_lift(tensor, level); });
}

inline void share_version_counter(const at::Tensor& view, const at::Tensor& base) {
  if (view.defined() && !view.is_same(base) && !view.is_inference() && !base.is_inference()) {
    view.unsafeGetTensorImpl()->set_version_counter(base.unsafeGetTensorImpl()->version_counter());
  }
}

// A view shares the version of `source`, and may have to be told to autograd later.
inline void after_view(const at::Tensor& view, const at::Tensor& source,
                       const OperatorTraits& traits, bool one_of_several) {
  share_version_counter(view, source);
  if (is_wrapper(source)) {
    wrapper_of(source)->set_fresh(false);
  }
  if (traits.tracked_view) {
    note_view(view, source, one_of_several);
  }
}

// The tensor as autograd of the level may see it: one that needs it as a constant of the level, of
// the same memory.
inline at::Tensor lifted(const at::Tensor& tensor, const Level& level) {
  if (!needs_lift(tensor, level)) {
    return tensor;
  }
  auto wrapped = wrap(tensor, no_bdim, level);
  share_version_counter(wrapped, tensor);
  return wrapped;
}

// Raises if autograd of `level`'s plane would record a write to `self`, which is of a lower one.
[[noreturn]] void raise_written_below(const c10::OperatorHandle& op);
template <class Each>
inline void check_recordable(const at::Tensor& self, const Level& level,
                             const c10::OperatorHandle& op, const Each& each) {
  if (C10_UNLIKELY(self.defined() && !wrapper_at(self, level) &&
                   (needs_lift(self, level) || any_differentiated_at(level, each)))) {
    raise_written_below(op);
  }
}

// The results of an operator none of whose arguments is batched, as tensors of `level`.
class UnbatchedResults {
 public:
  template <class Each>
  UnbatchedResults(const OperatorTraits& traits, const Level& level, const Each& each)
      : level_(level),
        traits_(traits),
        // Where tensors stand for values, what was made of own ones alone.
        own_(!traits.view && !traits.composite &&
             (C10_LIKELY(level.has_samples) || all_own(level, each))) {}

  // `source`: whose memory a view shares.
  at::Tensor operator()(at::Tensor&& result, const at::Tensor& source,
                        bool one_of_several = false) const {
    if (!result.defined()) {
      return std::move(result);
    }
    auto wrapped = wrap(std::move(result), no_bdim, level_);
    if (traits_.view) {
      share_memory(wrapped, source);
      after_view(wrapped, source, traits_, one_of_several);
    } else if (own_) {
      wrapper_of(wrapped)->set_own();
    }
    return wrapped;
  }

  template <class Each>
  static bool all_own(const Level& level, const Each& each) {
    return !any_tensor(each, [&](const at::Tensor& tensor) {
      const auto* wrapper = wrapper_at(tensor, level);
      return wrapper && !wrapper->is_own();
    });
  }

 private:
  const Level& level_;
  const OperatorTraits& traits_;
  const bool own_;
};

// Bookkeeping after an operator wrote to `self`, and none of its arguments is batched.
template <class Each>
inline void after_unbatched_write(const at::Tensor& self, const Level& level, const Each& each) {
  if (auto* wrapper = wrapper_at(self, level)) {
    wrapper->refresh();
    if (C10_UNLIKELY(!level.has_samples) && !UnbatchedResults::all_own(level, each)) {
      disown(self);
    }
  }
}

// While a rule runs, thread-local state belongs to the plane below: autograd is not excluded (that
// was only because autograd of this plane has done its part), and grad mode and forward mode are as
// they were outside the transforms of this plane (a custom function's jvp runs without forward
// mode).
class PlaneBelow {
 public:
  explicit PlaneBelow(const Level& level) : computing_(&level) {
    const auto state = c10::impl::tls_local_dispatch_key_set();
    if (state.excluded_.has_any(c10::autograd_dispatch_keyset_with_ADInplaceOrView)) {
      restore_autograd(state);
    }
    if (level.reverse_running.load(std::memory_order_relaxed) > 0) {
      restore_grad_mode(level);
    }
    if (level.forward_running.load(std::memory_order_relaxed) > 0) {
      restore_forward_mode(level);
    }
  }
  ~PlaneBelow() {
    if (restored_autograd_) {
      c10::impl::_force_tls_local_dispatch_key_set(saved_keys_);
    }
    if (restored_grad_mode_) {
      c10::GradMode::set_enabled(saved_grad_mode_);
    }
    if (restored_forward_mode_) {
      c10::AutogradState::get_tls_state().set_fw_grad_mode(!forward_mode_below_);
    }
  }
  PlaneBelow(const PlaneBelow&) = delete;
  PlaneBelow& operator=(const PlaneBelow&) = delete;

 private:
  void restore_autograd(const c10::impl::LocalDispatchKeySet& state);
  void restore_grad_mode(const Level& level);
  void restore_forward_mode(const Level& level);

  const Scoped<&ThreadState::computing> computing_;
  c10::impl::LocalDispatchKeySet saved_keys_{c10::impl::PODLocalDispatchKeySet{}};
  bool restored_autograd_ = false;
  bool restored_grad_mode_ = false;
  bool saved_grad_mode_ = false;
  bool restored_forward_mode_ = false;
  bool forward_mode_below_ = false;
};

// Boxed kernels that any operator can use: the loop over samples, and what the deepest level among
// the arguments computes by itself.
c10::BoxedKernel loop_kernel();
c10::BoxedKernel kernel_of_level();

// `tensor`, or what it stands for if it escaped its transform.
at::Tensor without_escaped(const at::Tensor& tensor);

// Sees to it that `self` can take a batched value in place on `level`, or raises.
void check_mutable(const at::Tensor& self, const Level& level, const c10::OperatorHandle& op);

// Bookkeeping after an operator wrote to `self`.
inline void after_mutation(const at::Tensor& self) {
  if (is_wrapper(self) && !self.is_inference()) {
    self.unsafeGetTensorImpl()->bump_version();
  }
}

// The argument that an in-place (first) or out= (last) operator writes to and returns.
template <class Return, class... Parameters, class... Arguments>
inline Return mutated_argument(Arguments&... arguments) {
  using First = std::tuple_element_t<0, std::tuple<Parameters...>>;
  auto all = std::forward_as_tuple(arguments...);
  if constexpr (std::is_same_v<Return, at::Tensor&>) {
    if constexpr (std::is_same_v<First, at::Tensor&>) {
      return std::get<0>(all);
    } else {
      return std::get<sizeof...(Parameters) - 1>(all);
    }
  } else if constexpr (std::is_same_v<Return, const at::Tensor&>) {
    return std::get<0>(all);
  } else {
    static_assert(sizeof...(Parameters) == 0, "out= operators with several results have no rule");
  }
}

// Visits what an operator that returns a reference or nothing writes to: the argument that it
// returns, or its first, a list.
template <class Return, class... Parameters, class Visit, class... Arguments>
inline void each_written(const Visit& visit, Arguments&... arguments) {
  if constexpr (std::is_reference_v<Return>) {
    visit(mutated_argument<Return, Parameters...>(arguments...));
  } else if constexpr (std::is_void_v<Return>) {
    for_each_tensor(std::get<0>(std::forward_as_tuple(arguments...)), visit);
  }
}

// The first argument that is a tensor by itself; undefined if there is none.
inline at::Tensor first_tensor() {
  return {};
}
template <class First, class... Rest>
inline at::Tensor first_tensor(const First& first, const Rest&... rest) {
  if constexpr (std::is_same_v<First, at::Tensor>) {
    return first;
  } else {
    return first_tensor(rest...);
  }
}

}  // namespace functorch_ext
