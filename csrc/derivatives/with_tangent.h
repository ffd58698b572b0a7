#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/AutogradState.h>

namespace functorch_ext {

// What `compute` computes, which reverse mode records, with this tangent; with that of PyTorch's
// formula if it is undefined. On plane 0: forward mode is off on all planes while it computes.
template <class Compute>
at::Tensor with_tangent(const at::Tensor& tangent, Compute&& compute) {
  if (!tangent.defined()) {
    return compute();
  }
  const auto primal = [&] {
    const c10::AutoFwGradMode without_formula(false);
    return compute();
  }();
  primal._set_fw_grad(tangent, /*level=*/0, /*is_inplace_op=*/false);
  return primal;
}

}  // namespace functorch_ext
