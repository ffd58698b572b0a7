// Writes of what has a tangent to a tensor that has none.
#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

// Two formulas write the tangent of `value` into plain zeros made for `self`. A tangent of another
// plane doesn't fit into these. (What runs below autograd has no tangents to care for.)
bool brings_tangent(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& value) {
  const auto& tangent = value._fw_grad(/*level=*/0);
  return keys.has_any(c10::autograd_dispatch_keyset) && tangent.defined() && is_wrapper(tangent) &&
         !self._fw_grad(/*level=*/0).defined();
}

at::Tensor& fill(c10::DispatchKeySet keys, at::Tensor& self, const at::Tensor& value) {
  if (brings_tangent(keys, self, value)) {
    return self.copy_(value);
  }
  return at::_ops::fill__Tensor::redispatch(below_derivatives(keys), self, value);
}

at::Tensor& index_put(c10::DispatchKeySet keys, at::Tensor& self, const OptionalTensors& indices,
                      const at::Tensor& values, bool accumulate, bool unsafe) {
  if (brings_tangent(keys, self, values)) {
    return self.copy_(self.index_put(indices, values, accumulate));
  }
  return at::_ops::_index_put_impl_::redispatch(below_derivatives(keys), self, indices, values,
                                                accumulate, unsafe);
}

}  // namespace

void register_tangent_writes_derivatives() {
  add_derivative_kernel<at::_ops::fill__Tensor>(fill);
  add_derivative_kernel<at::_ops::_index_put_impl_>(index_put);
}

}  // namespace functorch_ext
