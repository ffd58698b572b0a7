// Tensor.view(dtype), to which PyTorch gives no derivative, not even where the numbers stay the
// same.
#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

bool is_number(at::ScalarType dtype) {
  return c10::isFloatingType(dtype) || c10::isComplexType(dtype);
}

// The same numbers by views that have derivatives; of any tensor, since what has one may be written
// through the view.
at::Tensor view_as_dtype(c10::DispatchKeySet keys, const at::Tensor& self, at::ScalarType dtype) {
  const auto plain = [&] {
    return at::_ops::view_dtype::redispatch(below_derivatives(keys), self, dtype);
  };
  const auto from = self.scalar_type();
  const bool is_traced = keys.has(c10::DispatchKey::Python);
  if (!is_number(from) || !is_number(dtype) || self.is_conj() || self.is_neg() || is_traced ||
      !(is_differentiating() || any_differentiated(self))) {
    return plain();
  }
  if (from == dtype) {
    return at::alias(self);
  }
  if (c10::isFloatingType(from) && c10::toComplexType(from) == dtype && self.dim() > 0 &&
      self.sym_size(-1) % 2 == 0) {
    return at::view_as_complex(self.unflatten_symint(-1, {self.sym_size(-1) / 2, 2}));
  }
  if (c10::isComplexType(from) && c10::toRealValueType(from) == dtype && self.dim() > 0) {
    auto sizes = self.sym_sizes().vec();
    sizes.back() = sizes.back() * 2;
    return at::view_as_real(self).view_symint(sizes);
  }
  const auto result = plain();
  TORCH_CHECK_NOT_IMPLEMENTED(
      !any_differentiated(self), "functorch_ext: view(", dtype, ") of a tensor of ", from,
      " reads its bits as other numbers, which has no derivative: PyTorch would take it for zero. "
      "Use to(",
      dtype, ") to convert, or detach the tensor if it needs no derivative.");
  return result;
}

}  // namespace

void register_reinterpreted_derivatives() {
  add_derivative_kernel<at::_ops::view_dtype>(&view_as_dtype);
}

}  // namespace functorch_ext
