#pragma once

#include <tuple>
#include <utility>

#include "autodiff/forward.h"
#include "engine/derivatives.h"

namespace functorch_ext {

// Does a tangent flow that autograd would record although nobody can differentiate it?
template <class... Arguments>
bool records_tangents_for_nobody(c10::DispatchKeySet keys, const Arguments&... arguments) {
  if (C10_LIKELY(!any_tangent(arguments...)) || !c10::GradMode::is_enabled() ||
      keys.has(c10::DispatchKey::Python) ||
      c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Python)) {
    return false;
  }
  c10::SmallVector<at::Tensor, 4> tensors;
  bool recorded = false;
  const auto visit = [&](const at::Tensor& tensor) {
    if (tensor.defined()) {
      tensors.push_back(tensor);
      recorded = recorded || tensor.requires_grad();
    }
  };
  (for_each_tensor(arguments, visit), ...);
  return recorded && ForwardFrame::tangents_are_constants(tensors);
}

// What `compute` computes, with the tangents of `duals`, what it computes with tangents. For
// results whose formula of forward mode is long: what autograd would record of that takes several
// times the memory of the results.
template <class Duals, class Compute>
auto with_unrecorded_tangents(Duals&& duals, Compute&& compute) {
  const auto with_tangents = [&] {
    const c10::AutoGradMode unrecorded(false);
    return duals();
  }();
  auto results = [&] {
    const c10::AutoFwGradMode without_tangents(false);
    return compute();
  }();
  const auto add = [](const at::Tensor& result, const at::Tensor& dual) {
    if (const auto& tangent = dual._fw_grad(/*level=*/0); tangent.defined()) {
      result._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
    }
  };
  [&]<size_t... positions>(std::index_sequence<positions...>) {
    (add(std::get<positions>(results), std::get<positions>(with_tangents)), ...);
  }(std::make_index_sequence<std::tuple_size_v<decltype(results)>>());
  return results;
}

}  // namespace functorch_ext
