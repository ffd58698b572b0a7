// Reverse mode over forward mode of softmax and its kin. PyTorch's forward derivatives of these
// write in place to what reverse mode has saved, so for tensors that have a tangent and are
// recorded as well they are computed of their parts.
#include "batching/attention.h"
#include "batching/operators.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

bool is_recorded_with_tangent(const at::Tensor& tensor) {
  const auto& tangent = tensor._fw_grad(/*level=*/0);
  return c10::GradMode::is_enabled() && !is_wrapper(tensor) && tangent.defined() &&
         (tensor.requires_grad() || tangent.requires_grad());
}

// exp(x - shift), its sum, and the shift, which keeps the numbers small.
struct Exponentials {
  Exponentials(const at::Tensor& x, at::IntArrayRef dims) : shift(x.amax(dims, /*keepdim=*/true)) {
    shift = shift.masked_fill(shift.isinf(), 0);
    shifted = x - shift;
    exp = shifted.exp();
    sum = exp.sum(dims, /*keepdim=*/true);
  }
  at::Tensor shift;
  at::Tensor shifted;
  at::Tensor exp;
  at::Tensor sum;
};

at::Tensor in_dtype(const at::Tensor& tensor, std::optional<at::ScalarType> dtype) {
  return dtype ? tensor.to(*dtype) : tensor;
}

std::optional<at::ScalarType> dtype_of_result(bool half_to_float) {
  return half_to_float ? std::optional(at::kFloat) : std::nullopt;
}

at::Tensor softmax(c10::DispatchKeySet keys, const at::Tensor& self, int64_t dim,
                   bool half_to_float) {
  if (!is_recorded_with_tangent(self)) {
    return at::_ops::_softmax::redispatch(below_derivatives(keys), self, dim, half_to_float);
  }
  const Exponentials parts(in_dtype(self, dtype_of_result(half_to_float)), {dim});
  return parts.exp / parts.sum;
}

at::Tensor log_softmax(c10::DispatchKeySet keys, const at::Tensor& self, int64_t dim,
                       bool half_to_float) {
  if (!is_recorded_with_tangent(self)) {
    return at::_ops::_log_softmax::redispatch(below_derivatives(keys), self, dim, half_to_float);
  }
  const Exponentials parts(in_dtype(self, dtype_of_result(half_to_float)), {dim});
  return parts.shifted - parts.sum.log();
}

at::Tensor safe_softmax(c10::DispatchKeySet keys, const at::Tensor& self, int64_t dim,
                        std::optional<at::ScalarType> dtype) {
  if (!is_recorded_with_tangent(self)) {
    return at::_ops::_safe_softmax::redispatch(below_derivatives(keys), self, dim, dtype);
  }
  const Exponentials parts(in_dtype(self, dtype), {dim});
  return parts.exp / parts.sum.masked_fill(parts.sum == 0, 1);
}

at::Tensor logsumexp(c10::DispatchKeySet keys, const at::Tensor& self, at::IntArrayRef dims,
                     bool keepdim) {
  if (!is_recorded_with_tangent(self)) {
    return at::_ops::logsumexp::redispatch(below_derivatives(keys), self, dims, keepdim);
  }
  const Exponentials parts(self, dims);
  const auto result = parts.sum.log() + parts.shift;
  if (keepdim || self.dim() == 0) {
    return result;
  }
  return dims.empty() ? result.flatten().squeeze(0) : result.squeeze(dims);
}

}  // namespace

void register_softmax_derivatives() {
  add_derivative_kernel<at::_ops::_softmax>(softmax);
  add_derivative_kernel<at::_ops::_log_softmax>(log_softmax);
  add_derivative_kernel<at::_ops::_safe_softmax>(safe_softmax);
  add_derivative_kernel<at::_ops::logsumexp>(logsumexp);
}

}  // namespace functorch_ext
