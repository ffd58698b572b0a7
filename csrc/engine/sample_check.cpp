#include "engine/sample_check.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/select.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "engine/boxed.h"
#include "engine/failed_operator.h"
#include "engine/onlooking.h"
#include "engine/routing.h"

namespace functorch_ext {

namespace {

// More kinds of arguments than a program has unless it makes new ones all the time.
constexpr size_t most_kinds = 4096;

using c10::DispatchKey;
using c10::DispatchKeySet;

// Somebody sees the operators that run on this thread, or gives them another meaning.
bool is_recorded() {
  constexpr DispatchKeySet recording({DispatchKey::PreDispatch, DispatchKey::Functionalize,
                                      DispatchKey::FuncTorchDynamicLayerFrontMode});
  const auto included = c10::impl::tls_local_dispatch_key_set().included_;
  return included.has_any(recording) || (included.has(DispatchKey::Python) && has_other_modes());
}

// A tensor of memory that an operator may run on.
bool is_ordinary(const at::Tensor& tensor) {
  constexpr DispatchKeySet others({DispatchKey::Python, DispatchKey::Functionalize,
                                   DispatchKey::Batched, DispatchKey::NestedTensor,
                                   DispatchKey::ZeroTensor});
  return tensor.layout() == at::kStrided && !tensor.key_set().has_any(others) &&
         !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

// The sample of a tensor as a plain tensor: that at `index` of `level`, the first of other levels.
// Undefined if there is none.
at::Tensor sample_of(const at::Tensor& tensor, const Level* level, int64_t index) {
  if (!is_wrapper(tensor)) {
    return is_ordinary(tensor) ? tensor : at::Tensor();
  }
  const auto& wrapper = *wrapper_of(tensor);
  const auto value = sample_of(wrapper.value(), level, index);
  if (!wrapper.is_batched() || !value.defined()) {
    return value;
  }
  const auto position = &wrapper.level() == level ? index : 0;
  return position < value.size(wrapper.bdim()) ? value.select(wrapper.bdim(), position)
                                               : at::Tensor();
}

// The schemas of some normalizations don't tell that they update the running statistics.
bool may_write(const c10::OperatorHandle& op) {
  return op.schema().is_mutable() || op.schema().argumentIndexWithName("running_mean");
}

}  // namespace

bool SampleCheck::is_known(uint64_t kinds) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!known_.count(kinds)) {
    return false;
  }
  recent(kinds).store(kinds, std::memory_order_relaxed);
  return true;
}

void SampleCheck::remember(uint64_t kinds) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (known_.size() >= most_kinds) {
    known_.clear();
  }
  known_.insert(kinds);
  recent(kinds).store(kinds, std::memory_order_relaxed);
}

bool run_on_sample(const c10::OperatorHandle& op, const Level* level, Stack arguments,
                   int64_t index, const std::function<void(Stack&)>& prepare) {
  if (is_recorded()) {
    return false;
  }
  const at::DisableRecordFunctionGuard unobserved;  // it is no part of the program
  // As a thread starts out, but without autograd, and with autocast as it is.
  const auto excluded = c10::impl::tls_local_dispatch_key_set().excluded_;
  const c10::impl::ForceDispatchKeyGuard plain(
      c10::default_included_set - DispatchKeySet(DispatchKey::ADInplaceOrView),
      (c10::default_excluded_set - c10::autocast_dispatch_keyset) |
          (excluded & c10::autocast_dispatch_keyset) |
          c10::autograd_dispatch_keyset_with_ADInplaceOrView);
  const bool writes = may_write(op);
  bool complete = true;
  rewrite_stack(arguments, arguments.size(), [&](const at::Tensor& tensor) {
    auto sample = sample_of(tensor, level, index);
    complete = complete && sample.defined();
    if (!complete || prepare) {
      return complete ? sample : tensor;
    }
    // Kernels may rely on the memory of a tensor of its own.
    const bool as_it_is =
        !writes && sample.is_contiguous() && !sample.is_conj() && !sample.is_neg();
    return as_it_is ? sample : sample.clone(at::MemoryFormat::Contiguous);
  });
  if (complete) {
    if (prepare) {
      prepare(arguments);
    }
    op.callBoxed(&arguments);
  }
  return complete;
}

bool ask_about_sample(const c10::OperatorHandle& op, const Level& level, const Stack& arguments,
                      int64_t index) {
  try {
    return run_on_sample(op, &level, arguments, index);
  } catch (const c10::NotImplementedError&) {
    return true;
  } catch (const c10::Error& error) {
    note_failed_operator(op, error);
    throw;
  }
}

void raise_error_of_sample(const c10::Error& error, const c10::OperatorHandle& op,
                           const Level& level, const Stack& arguments) {
  note_failed_operator(op, error);
  // What a rule has found out is said already, and indices that are out of range are nothing for
  // kernels that don't look.
  const bool is_ours = error.msg().rfind("functorch_ext", 0) == 0;
  if (is_ours || dynamic_cast<const c10::IndexError*>(&error) || OperatorTraits::of(op).random) {
    return;
  }
  const auto samples = level.batch_size.maybe_as_int().value_or(0);
  for (int64_t index = 0; index < samples; ++index) {
    if (!ask_about_sample(op, level, arguments, index)) {
      return;
    }
  }
}

}  // namespace functorch_ext
