// Softmax and its kin.
#include "derivatives/register.h"
#include "derivatives/second_order.h"

namespace functorch_ext {

namespace {

// exp(x - shift), its sum, and the shift, which keeps the numbers small and cancels out.
struct Exponentials {
  Exponentials(const at::Tensor& x, at::IntArrayRef dims) : shift(shift_of(x.detach(), dims)) {
    shifted = x - shift;
    exp = shifted.exp();
    sum = exp.sum(dims, /*keepdim=*/true);
  }
  at::Tensor shift;
  at::Tensor shifted;
  at::Tensor exp;
  at::Tensor sum;

 private:
  static at::Tensor shift_of(const at::Tensor& x, at::IntArrayRef dims) {
    if (x.sym_numel() == 0) {
      return at::zeros_like(x.sum(dims, /*keepdim=*/true));
    }
    const auto largest = x.amax(dims, /*keepdim=*/true);
    return largest.masked_fill(largest.isinf(), 0);
  }
};

at::Tensor in_dtype(const at::Tensor& tensor, std::optional<at::ScalarType> dtype) {
  return dtype ? tensor.to(*dtype) : tensor;
}

std::optional<at::ScalarType> dtype_of_result(bool half_to_float) {
  return half_to_float ? std::optional(at::kFloat) : std::nullopt;
}

at::Tensor softmax(const at::Tensor& self, int64_t dim, bool half_to_float) {
  const Exponentials parts(in_dtype(self, dtype_of_result(half_to_float)), {dim});
  return parts.exp / parts.sum;
}

at::Tensor log_softmax(const at::Tensor& self, int64_t dim, bool half_to_float) {
  const Exponentials parts(in_dtype(self, dtype_of_result(half_to_float)), {dim});
  return parts.shifted - parts.sum.log();
}

at::Tensor safe_softmax(const at::Tensor& self, int64_t dim, std::optional<at::ScalarType> dtype) {
  const Exponentials parts(in_dtype(self, dtype), {dim});
  return parts.exp / parts.sum.masked_fill(parts.sum == 0, 1);
}

at::Tensor logsumexp(const at::Tensor& self, at::IntArrayRef dims, bool keepdim) {
  const Exponentials parts(self, dims);
  const auto result = parts.sum.log() + parts.shift;
  if (keepdim || self.dim() == 0) {
    return result;
  }
  return dims.empty() ? result.flatten().squeeze(0) : result.squeeze(dims);
}

// The logarithms of the sums of the first 1, 2, ... exponentials.
at::Tensor logcumsumexp(const at::Tensor& self, int64_t dim) {
  if (self.dim() == 0) {
    at::maybe_wrap_dim(dim, 0);  // raises if there is none such
    return self.clone();
  }
  return numbers_up_to_each(self, dim, -std::numeric_limits<double>::infinity())
      .logsumexp(-1)
      .movedim(-1, dim);
}

}  // namespace

void register_softmax_derivatives() {
  add_second_order<at::_ops::_softmax, softmax>();
  add_second_order<at::_ops::_log_softmax, log_softmax>();
  add_second_order<at::_ops::_safe_softmax, safe_softmax>();
  add_second_order<at::_ops::logsumexp, logsumexp>();
  add_second_order<at::_ops::logcumsumexp, logcumsumexp>();
}

}  // namespace functorch_ext
