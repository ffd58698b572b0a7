#pragma once

#include <ATen/core/boxing/BoxedKernel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <utility>

#include "engine/wrapper.h"

// Which way an operator goes: the decisions that entry and landing kernels share.
namespace functorch_ext {

// What an operator's schema and registrations tell of it.
struct OperatorTraits {
  bool composite = false;      // CompositeImplicitAutograd: made of other operators
  bool view = false;           // its result aliases an argument that it doesn't write to
  bool tracked_view = false;   // ... and its derivative too (detach has none)
  bool mutates = false;        // it writes to an argument
  bool random = false;         // it draws random numbers
  bool dynamic_shape = false;  // the shape of its result depends on the values of its arguments
  uint64_t written = 0;        // bit i: it writes to argument i

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

// The part of the decision that doesn't need the arguments: is autocast on, or does this plane
// differentiate?
bool routes_through_autograd(const OperatorTraits& traits, c10::DispatchKeySet keys,
                             const Level& level);

// Can an operator with these keys be differentiated on this plane? Not if autograd is excluded, nor
// if it is a part of a rule for the same plane.
bool differentiates_at_all(c10::DispatchKeySet keys, const Level& level);

// Does a derivative flow through this tensor on its own plane?
bool is_differentiated(const at::Tensor& tensor);

// A tensor of a lower plane that autograd of `level`'s plane must not look into: it takes part
// as a constant, wrapped.
bool needs_lift(const at::Tensor& tensor, const Level& level);

// While a rule runs, thread-local state belongs to the plane below: autograd is not excluded (that
// was only because autograd of this plane has done its part), and grad mode and forward mode are as
// they were outside the transforms of this plane (a custom function's jvp runs without forward
// mode).
class PlaneBelow {
 public:
  explicit PlaneBelow(const Level& level)
      : computing_(std::exchange(thread_state().computing, &level)) {
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
    thread_state().computing = computing_;
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

  c10::impl::LocalDispatchKeySet saved_keys_{c10::impl::PODLocalDispatchKeySet{}};
  const Level* computing_;
  bool restored_autograd_ = false;
  bool restored_grad_mode_ = false;
  bool saved_grad_mode_ = false;
  bool restored_forward_mode_ = false;
  bool forward_mode_below_ = false;
};

// Boxed kernels that any operator can use; see boxed.cpp and functionalization/.
c10::BoxedKernel loop_kernel();
c10::BoxedKernel functional_kernel();

// `tensor`, or what it stands for if it outlived its transform.
at::Tensor resolve_outlived(const at::Tensor& tensor);

// Sees to it that `self` can take a batched value in place on `level`, or raises.
void check_mutable(const at::Tensor& self, const Level& level, const c10::OperatorHandle& op);
// Raises if `self` belongs to a lower plane.
void check_mutable_at(const at::Tensor& self, const Level& level, const c10::OperatorHandle& op);

// Bookkeeping after an operator wrote to `self`.
inline void after_mutation(const at::Tensor& self) {
  if (is_wrapper(self) && !self.is_inference()) {
    self.unsafeGetTensorImpl()->bump_version();
  }
}

inline void share_version_counter(const at::Tensor& view, const at::Tensor& base) {
  if (view.defined() && !view.is_same(base) && !view.is_inference() && !base.is_inference()) {
    view.unsafeGetTensorImpl()->set_version_counter(base.unsafeGetTensorImpl()->version_counter());
  }
}

template <class Argument>
inline void refresh_mutated(Argument& argument, const Level& level) {
  if constexpr (std::is_same_v<Argument, at::Tensor>) {
    if (auto* wrapper = wrapper_at(argument, level)) {
      wrapper->refresh();
    }
  }
}

// A tensor of a lower plane as one of the level's: a constant, of the same memory.
inline at::Tensor lifted(const at::Tensor& tensor, const Level& level) {
  auto wrapped = wrap(tensor, no_bdim, level);
  share_version_counter(wrapped, tensor);
  return wrapped;
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
