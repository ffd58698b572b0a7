// Operators without a derivative of forward mode: those of PyTorch, from a table made at build
// time, and those that programs register. Their tangents come by reverse mode, taken twice.
#include "derivatives/missing_forward.h"

#include <torch/csrc/autograd/jit_decomp_interface.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "autodiff/forward_by_reverse.h"
#include "autodiff/plane.h"
#include "engine/boxed.h"
#include "engine/derivatives.h"
#include "engine/registration.h"
#include "engine/variants.h"

namespace functorch_ext {

namespace {

using c10::OperatorHandle;

// What PyTorch can't push forward, and what computes the same without mutation.
constexpr std::pair<const char*, const char*> without_forward_mode[] = {
#include "without_forward_mode.inc"
};

std::vector<at::Tensor> tensors_on(const OperatorHandle& op, const Stack& stack) {
  std::vector<at::Tensor> tensors;
  for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
  return tensors;
}

// Does a tangent flow into an operator that is called from outside of all rules and kernels?
bool tangent_flows(const OperatorHandle& op, c10::DispatchKeySet keys, const Stack& stack) {
  if (!keys.has_any(c10::autograd_dispatch_keyset)) {
    return false;
  }
  bool any = false;
  for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) {
    any = any || tensor._fw_grad(/*level=*/0).defined();
  });
  if (C10_LIKELY(!any)) {
    return false;
  }
  if (keys.has_any(torch_func_modes) && is_inside_torch_func(deepest_level(op, stack))) {
    return false;
  }
  const auto tensors = tensors_on(op, stack);
  const auto plane = plane_of(tensors);
  const bool is_strided = std::all_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.layout() == at::kStrided;
  });
  return is_strided &&
         (!plane || (plane->is_running() && thread_state().computing != plane.get())) &&
         any_tangent_on(tensors, plane);
}

// The operator on the stack as a function of its tensors. It keeps the other arguments, and its
// results for whoever wants them all.
struct Call {
  OperatorHandle op;
  Stack arguments;
  Stack results;

  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& tensors) {
    Stack stack = arguments;
    size_t next = 0;
    rewrite_stack(stack, arguments.size(), [&](const at::Tensor&) { return tensors[next++]; });
    op.callBoxed(&stack);
    results = stack;
    return with_results({});
  }

  // The tensors among the results, which become those of `others` if there are any.
  std::vector<at::Tensor> with_results(const std::vector<at::Tensor>& others) {
    std::vector<at::Tensor> tensors;
    rewrite_stack(results, results.size(), [&](const at::Tensor& tensor) {
      const auto& result = others.empty() ? tensor : others[tensors.size()];
      tensors.push_back(result);
      return result;
    });
    return tensors;
  }
};

std::string name_of(const OperatorHandle& op) {
  return toString(op.operator_name());
}

void push_forward(const OperatorHandle& op, Stack* stack) {
  const auto count = op.schema().arguments().size();
  const auto inputs = tensors_on(op, *stack);
  const auto call = std::make_shared<Call>(Call{op, Stack(stack->end() - count, stack->end()), {}});
  // What a later backward pass calls has results of its own.
  const TensorFunction function = [op, arguments = call->arguments,
                                   call = std::weak_ptr<Call>(call)](const auto& tensors) {
    Call anew{op, arguments, {}};
    auto outputs = anew(tensors);
    if (const auto first = call.lock()) {
      first->results = std::move(anew.results);
    }
    return outputs;
  };
  const auto outputs = push_forward_by_reverse(function, inputs, plane_of(inputs), name_of(op));
  call->with_results(outputs);
  torch::jit::drop(*stack, count);
  stack->insert(stack->end(), call->results.begin(), call->results.end());
}

// PyTorch finds a decomposition for some operators when a tangent flows into them.
bool is_decomposed(const OperatorHandle& op) {
  const auto* decompositions = torch::autograd::impl::getJitDecompImpl();
  return decompositions && decompositions->has_jit_decomposition(op.schema());
}

void of_pytorch(const OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (C10_LIKELY(!tangent_flows(op, keys, *stack))) {
    op.redispatchBoxed(below_derivatives(keys), stack);
  } else {
    push_forward(op, stack);
  }
}

// In place: the result of the operator that doesn't mutate, as the new value.
class InPlace final : public c10::OperatorKernel {
 public:
  explicit InPlace(OperatorHandle functional) : functional_(std::move(functional)) {}

  void operator()(const OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
    if (C10_LIKELY(!tangent_flows(op, keys, *stack))) {
      op.redispatchBoxed(below_derivatives(keys), stack);
      return;
    }
    auto& first = (*stack)[stack->size() - op.schema().arguments().size()];
    const auto self = first.toTensor();
    first = self.clone();  // autograd may save it
    functional_.callBoxed(stack);
    const auto value = torch::jit::pop(*stack).toTensor();
    TORCH_CHECK(c10::canCast(value.scalar_type(), self.scalar_type()), "result type ",
                value.scalar_type(), " can't be cast to the desired output type ",
                self.scalar_type());
    self.copy_(value);
    stack->emplace_back(self);
  }

 private:
  const OperatorHandle functional_;
};

bool has_derivative(const OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::Autograd) ||
         op.hasKernelForAnyDispatchKey(c10::autograd_dispatch_keyset);
}

// Does reverse mode follow an argument of an operator that is called from outside of all rules?
bool is_call_recorded(c10::DispatchKeySet keys, const OperatorHandle& op, const Stack& stack) {
  if (!c10::GradMode::is_enabled() || !keys.has_any(c10::autograd_dispatch_keyset)) {
    return false;
  }
  bool any = false;
  for_each_tensor_on_stack(op, stack, [&](const at::Tensor& tensor) {
    any =
        any || (tensor.requires_grad() &&
                !(is_wrapper(tensor) && thread_state().computing == &wrapper_of(tensor)->level()));
  });
  return any;
}

[[noreturn]] void raise_without_derivative(const OperatorHandle& op, const char* flows) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, "functorch_ext: ", flows, name_of(op), ", which ",
      op.schema().is_mutable() ? "writes to its arguments" : "has no derivative",
      ": PyTorch would take it for zero. Register one with torch.library.register_autograd "
      "(forward mode makes use of it) for an operator that doesn't write to its arguments, or "
      "detach the arguments if they need no derivative.");
}

// Has the operator returned, or written to, what could have a derivative?
bool any_differentiable(const Stack& results, size_t count) {
  bool any = false;
  std::for_each(results.end() - count, results.end(), [&](const c10::IValue& result) {
    visit_tensors(result, [&](const at::Tensor& tensor) {
      any = any || tensor.is_floating_point() || tensor.is_complex();
    });
  });
  return any;
}

// What a program registers may have no derivative at all, which PyTorch takes for a derivative of
// zero.
void of_program(const OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const auto traits = OperatorTraits::of(op);
  const bool flows = tangent_flows(op, keys, *stack);
  const bool has_none = !has_derivative(op) && (flows || is_call_recorded(keys, op, *stack));
  if (C10_LIKELY(!flows && !has_none) || traits.composite || traits.view) {
    op.redispatchBoxed(below_derivatives(keys), stack);
    return;
  }
  const auto* what = flows ? "a tangent flows into " : "an argument that requires grad goes into ";
  if (flows && traits.mutates) {
    raise_without_derivative(op, what);
  }
  if (!has_none) {
    push_forward(op, stack);
    return;
  }
  op.redispatchBoxed(below_derivatives(keys), stack);
  if (traits.mutates || any_differentiable(*stack, op.schema().returns().size())) {
    raise_without_derivative(op, what);
  }
}

template <auto kernel>
void register_once(const OperatorHandle& op) {
  if (!op.hasKernelForDispatchKey(derivative_key)) {
    register_kernel(op, derivative_key, c10::KernelFunction::makeFromBoxedFunction<kernel>());
  }
}

// Notes the operators that programs define. (While it is told of one, the dispatcher is locked.)
class Listener final : public c10::OpRegistrationListener {
 public:
  void onOperatorRegistered(const OperatorHandle& op) override {
    const std::lock_guard lock(mutex_);
    const auto space = op.operator_name().getNamespace();
    if (space != "aten" && space != "prim") {
      defined_.push_back(op.operator_name());
      any_.store(true, std::memory_order_relaxed);
    }
  }
  void onOperatorDeregistered(const OperatorHandle&) override {}

  static void register_all() {
    if (C10_LIKELY(!any_.load(std::memory_order_relaxed))) {
      return;
    }
    std::vector<c10::OperatorName> defined;
    {
      const std::lock_guard lock(mutex_);
      defined.swap(defined_);
      any_.store(false, std::memory_order_relaxed);
    }
    for (const auto& name : defined) {
      if (const auto op = c10::Dispatcher::singleton().findSchema(name)) {
        register_once<&of_program>(*op);
      }
    }
  }

 private:
  static inline std::mutex mutex_;
  static inline std::vector<c10::OperatorName> defined_;
  static inline std::atomic<bool> any_ = false;
};

}  // namespace

void register_missing_forward() {
  for (const auto& [name, functional_name] : without_forward_mode) {
    const auto op = operator_called(name);
    const auto functional = operator_called(functional_name);
    if (op.hasKernelForDispatchKey(derivative_key) || is_decomposed(op)) {
      continue;
    }
    if (!op.schema().is_mutable()) {
      register_once<&of_pytorch>(op);
    } else if (functional.schema().returns().size() == 1) {
      register_kernel(
          op, derivative_key,
          c10::KernelFunction::makeFromBoxedFunctor(std::make_unique<InPlace>(functional)));
    }
  }
  static auto* listening = new c10::RegistrationHandleRAII(
      c10::Dispatcher::singleton().addRegistrationListener(std::make_unique<Listener>()));
  static_cast<void>(listening);
  set_before_transforms(&Listener::register_all);
}

}  // namespace functorch_ext
