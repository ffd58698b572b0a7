#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

#include "engine/arguments.h"
#include "engine/randomness.h"
#include "engine/registration.h"
#include "engine/torch_func.h"

// Kernels ahead of PyTorch's derivatives. While a transform differentiates, on any plane, or a vmap
// runs, they see some operators first, and compute the same in another way where PyTorch's formulas
// are missing (fused operators), wrong (second derivatives) or slow (tangents of zeros, layers).
namespace functorch_ext {

// A transform of this thread differentiates, for as long as this lives.
class Differentiating {
 public:
  Differentiating();
  ~Differentiating();
  Differentiating(const Differentiating&) = delete;
  Differentiating& operator=(const Differentiating&) = delete;

 private:
  const Scoped<&ThreadState::differentiations> count_;
  // Was the key there before? (An autograd thread inherits it.)
  const bool outer_included_;
};

// What is called when a vmap, or the first differentiation of a thread, begins.
void set_before_transforms(void (*function)());
void before_transforms();
// Does a transform of this thread differentiate?
inline bool is_differentiating() {
  return thread_state().differentiations > 0;
}

// What is left of an operator's keys below ours.
inline c10::DispatchKeySet below_derivatives(c10::DispatchKeySet keys) {
  return keys_below(derivative_key, keys);
}

// Is a call torch.func's, because one of its transforms runs inside the levels of the arguments, or
// has ended and left one of them?
inline bool is_inside_torch_func(const DeepestLevel& deepest) {
  return !deepest.level || running_layers() > deepest.level->layers;
}
template <class... Arguments>
bool is_for_torch_func(c10::DispatchKeySet keys, const Arguments&... arguments) {
  constexpr auto theirs = torch_func_modes.add(c10::DispatchKey::FuncTorchGradWrapper);
  if (C10_LIKELY(!keys.has_any(theirs))) {
    return false;
  }
  DeepestLevel deepest;
  bool any_ended = false;
  const auto visit = [&](const at::Tensor& tensor) {
    deepest(tensor);
    any_ended = any_ended || is_of_ended_layer(tensor);
  };
  (for_each_tensor(arguments, visit), ...);
  return any_ended || (keys.has_any(torch_func_modes) && is_inside_torch_func(deepest));
}

// Has any of the arguments a tangent? (Forward mode keeps them all at PyTorch's dual level 0.)
template <class... Arguments>
bool any_tangent(const Arguments&... arguments) {
  bool found = false;
  (for_each_tensor(
       arguments,
       [&](const at::Tensor& tensor) { found = found || tensor._fw_grad(/*level=*/0).defined(); }),
   ...);
  return found;
}

// Does autograd, reverse or forward, follow any of the arguments?
template <class... Arguments>
bool any_differentiated(const Arguments&... arguments) {
  bool found = false;
  if (c10::GradMode::is_enabled()) {
    (for_each_tensor(arguments,
                     [&](const at::Tensor& tensor) { found = found || tensor.requires_grad(); }),
     ...);
  }
  return found || any_tangent(arguments...);
}

// A kernel on our key, unless the call is torch.func's.
template <class Op, class Signature = typename Op::schema>
class DerivativeKernel;
template <class Op, class Return, class... Parameters>
class DerivativeKernel<Op, Return(Parameters...)> final : public c10::OperatorKernel {
 public:
  using Function = Return(c10::DispatchKeySet, Parameters...);
  explicit DerivativeKernel(Function* function) : function_(function) {}

  Return operator()(c10::DispatchKeySet keys, Parameters... arguments) const {
    if (C10_UNLIKELY(is_for_torch_func(keys, arguments...))) {
      return Op::redispatch(below_derivatives(keys), std::forward<Parameters>(arguments)...);
    }
    return function_(keys, std::forward<Parameters>(arguments)...);
  }

 private:
  Function* const function_;
};

// Gives an operator a kernel on our key: a function of the dispatch keys and its arguments.
template <class Op>
void add_derivative_kernel(typename DerivativeKernel<Op>::Function* function) {
  using Kernel = DerivativeKernel<Op>;
  register_kernel(c10::Dispatcher::singleton().findSchemaOrThrow(Op::name, Op::overload_name),
                  derivative_key,
                  c10::KernelFunction::makeFromUnboxedFunctor<false, Kernel>(
                      std::make_unique<Kernel>(function)));
}

// Computes an operator by `same`, a function of its arguments, whenever `when(arguments...)` holds.
// What the operator refuses is refused: plain PyTorch is asked about arguments of a new kind.
inline constexpr auto has_tangents = [](const auto&... arguments) {
  return any_tangent(arguments...);
};
inline constexpr auto is_differentiated_here = [](const auto&... arguments) {
  return any_differentiated(arguments...);
};

template <class Op, auto when, auto same, class Signature = typename Op::schema>
struct ComputedWhen;
template <class Op, auto when, auto same, class Return, class... Parameters>
struct ComputedWhen<Op, when, same, Return(Parameters...)> {
  static Return kernel(c10::DispatchKeySet keys, Parameters... arguments) {
    if (C10_UNLIKELY(when(arguments...))) {
      if (!sample_check().is_off()) {
        sample_check().check(
            [&] {
              return run_on_sample(operator_handle(), nullptr,
                                   c10::impl::boxArgs<Parameters...>(arguments...));
            },
            arguments...);
      }
      return same(std::forward<Parameters>(arguments)...);
    }
    return Op::redispatch(below_derivatives(keys), std::forward<Parameters>(arguments)...);
  }

  static const c10::OperatorHandle& operator_handle() {
    static const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow(Op::name, Op::overload_name);
    return handle;
  }
  static SampleCheck& sample_check() {
    static auto* check = [] {
      auto* made = new SampleCheck();
      if (OperatorTraits::of(operator_handle()).random) {
        made->turn_off();  // it would draw
      }
      return made;
    }();
    return *check;
  }
};

template <class Op, auto when, auto same>
void add_computed_when() {
  add_derivative_kernel<Op>(&ComputedWhen<Op, when, same>::kernel);
}

}  // namespace functorch_ext
