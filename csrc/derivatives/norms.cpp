// Vector norms and other operators that are made of pointwise ones.
#include <cmath>

#include "derivatives/register.h"
#include "derivatives/second_order.h"

namespace functorch_ext {

namespace {

// x to the power p > 0, with derivative 0 where x is 0: the subgradient that norms have there.
at::Tensor power(const at::Tensor& x, double p) {
  const auto zero = x == 0;
  return x.masked_fill(zero, 1).pow(p).masked_fill(zero, 0);
}

at::Tensor vector_norm(const at::Tensor& self, const at::Scalar& order,
                       at::OptionalIntArrayRef dims, bool keepdim,
                       std::optional<at::ScalarType> dtype) {
  const auto x = dtype ? self.to(*dtype) : self;
  const auto over = dims.value_or(at::IntArrayRef());
  const double p = order.toDouble();
  if (p == 2) {
    const auto squares = x.is_complex() ? at::real(x * x.conj()) : x * x;
    return power(squares.sum(over, keepdim), 0.5);
  }
  const auto sizes = x.abs();
  if (std::isinf(p)) {
    return p > 0 ? sizes.amax(over, keepdim) : sizes.amin(over, keepdim);
  }
  if (p == 0) {
    return (sizes != 0).sum(over, keepdim).to(sizes.scalar_type());
  }
  if (p == 1) {
    return sizes.sum(over, keepdim);
  }
  if (p < 0) {
    return sizes.pow(p).sum(over, keepdim).pow(1 / p);
  }
  return power(power(sizes, p).sum(over, keepdim), 1 / p);
}

at::Tensor norm(const at::Tensor& self, const at::Scalar& p) {
  return vector_norm(self, p, std::nullopt, /*keepdim=*/false, std::nullopt);
}

at::Tensor norm_along(const at::Tensor& self, const std::optional<at::Scalar>& p,
                      at::IntArrayRef dims, bool keepdim) {
  return vector_norm(self, p.value_or(2), dims, keepdim, std::nullopt);
}

at::Tensor norm_in_dtype(const at::Tensor& self, const std::optional<at::Scalar>& p,
                         at::ScalarType dtype) {
  return vector_norm(self, p.value_or(2), std::nullopt, /*keepdim=*/false, dtype);
}

at::Tensor norm_along_in_dtype(const at::Tensor& self, const std::optional<at::Scalar>& p,
                               at::IntArrayRef dims, bool keepdim, at::ScalarType dtype) {
  return vector_norm(self, p.value_or(2), dims, keepdim, dtype);
}

at::Tensor dist(const at::Tensor& self, const at::Tensor& other, const at::Scalar& p) {
  return vector_norm(self - other, p, std::nullopt, /*keepdim=*/false, std::nullopt);
}

// Slices along `dim` whose norm is larger than `largest` are scaled down to it.
at::Tensor renorm(const at::Tensor& self, const at::Scalar& p, int64_t dim,
                  const at::Scalar& largest) {
  TORCH_CHECK(self.dim() > 1, "renorm: input needs at least 2 dimensions, got ", self.dim(),
              " dimensions");
  TORCH_CHECK(p.toDouble() > 0, "renorm: non-positive-norm not supported");
  TORCH_CHECK(largest.toDouble() >= 0, "renorm: expected maxnorm to be >= 0 but got ", largest);
  constexpr double epsilon = 1e-7;  // PyTorch's
  c10::DimVector others;
  for (int64_t other = 0; other < self.dim(); ++other) {
    if (other != at::maybe_wrap_dim(dim, self.dim())) {
      others.push_back(other);
    }
  }
  const auto norms = vector_norm(self, p, others, /*keepdim=*/true, std::nullopt);
  const auto scaled = (norms + epsilon).reciprocal() * largest;
  return self * scaled.masked_fill(norms <= largest, 1);
}

// PyTorch's formula writes in place to what it has computed.
at::Tensor deviation(const at::Tensor& self, at::OptionalIntArrayRef dims,
                     const std::optional<at::Scalar>& correction, bool keepdim) {
  return power(at::var(self, dims, correction, keepdim), 0.5);
}

std::tuple<at::Tensor, at::Tensor> deviation_and_mean(const at::Tensor& self,
                                                      at::OptionalIntArrayRef dims,
                                                      const std::optional<at::Scalar>& correction,
                                                      bool keepdim) {
  auto [variance, mean] = at::var_mean(self, dims, correction, keepdim);
  return {power(variance, 0.5), std::move(mean)};
}

// Each number times 1 or -1. PyTorch's formula writes in place to the quotient, too.
at::Tensor copysign_of_tensor(const at::Tensor& self, const at::Tensor& other) {
  const auto values = at::copysign(self.detach(), other.detach());
  const auto x = self.to(values.scalar_type());
  const auto constant = x.detach();
  return at::where(constant == 0, values, x * (constant.sgn() * values.sgn()));
}

at::Tensor copysign_of_number(const at::Tensor& self, const at::Scalar& other) {
  return copysign_of_tensor(self, at::scalar_tensor(other, self.options()));
}

at::Tensor cumulative_product(const at::Tensor& self, int64_t dim,
                              std::optional<at::ScalarType> dtype) {
  const auto x = dtype ? self.to(*dtype) : self;
  if (x.dim() == 0) {
    at::maybe_wrap_dim(dim, 0);  // raises if there is none such
    return x.clone();
  }
  return numbers_up_to_each(x, dim, 1).prod(-1).movedim(-1, dim);
}

at::Tensor glu(const at::Tensor& self, int64_t dim) {
  TORCH_CHECK(self.dim() > 0, "glu does not support 0-dimensional tensors");
  const auto size = self.sym_size(dim);
  TORCH_CHECK(size % 2 == 0, "Halving dimension must be even, but dimension ", dim, " is size ",
              size);
  const auto half = size / 2;
  return self.narrow_symint(dim, 0, half) * self.narrow_symint(dim, half, half).sigmoid();
}

// The derivative of weight norm. PyTorch takes the norms, which it has saved, for constants.
std::tuple<at::Tensor, at::Tensor> weight_norm_backward(const at::Tensor& cotangent,
                                                        const at::Tensor& v, const at::Tensor& g,
                                                        const at::Tensor&, int64_t dim) {
  std::vector<int64_t> others;
  for (int64_t each = 0; each < v.dim(); ++each) {
    if (each != dim) {
      others.push_back(each);
    }
  }
  const auto norms = at::norm_except_dim(v, 2, dim);
  const auto direction = v / norms;
  const auto along = (cotangent * direction).sum(others, /*keepdim=*/true);
  return {(g / norms) * (cotangent - direction * along), along};
}

// PyTorch gives the gradient by `self` where the source was written, instead of elsewhere.
at::Tensor as_strided_scatter(c10::DispatchKeySet keys, const at::Tensor& self,
                              const at::Tensor& source, c10::SymIntArrayRef size,
                              c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  if (!any_differentiated(self, source) || !self.is_contiguous() ||
      self.sym_storage_offset() != 0) {
    return at::_ops::as_strided_scatter::redispatch(below_derivatives(keys), self, source, size,
                                                    stride, offset);
  }
  auto result = self.clone();
  result.as_strided_symint(size, stride, offset).copy_(source);
  return result;
}

}  // namespace

void register_norms_derivatives() {
  add_second_order<at::_ops::linalg_vector_norm, vector_norm>();
  add_second_order<at::_ops::norm_Scalar, norm>();
  add_second_order<at::_ops::norm_ScalarOpt_dim, norm_along>();
  add_second_order<at::_ops::norm_ScalarOpt_dtype, norm_in_dtype>();
  add_second_order<at::_ops::norm_ScalarOpt_dim_dtype, norm_along_in_dtype>();
  add_second_order<at::_ops::dist, dist>();
  add_second_order<at::_ops::renorm, renorm>();
  add_second_order<at::_ops::std_correction, deviation>();
  add_second_order<at::_ops::std_mean_correction, deviation_and_mean>();
  add_second_order<at::_ops::copysign_Tensor, copysign_of_tensor>();
  add_second_order<at::_ops::copysign_Scalar, copysign_of_number>();
  add_second_order<at::_ops::cumprod, cumulative_product>();
  add_second_order<at::_ops::glu, glu>();
  add_computed_when<at::_ops::_weight_norm_differentiable_backward, is_differentiated_here,
                    weight_norm_backward>();
  add_derivative_kernel<at::_ops::as_strided_scatter>(as_strided_scatter);
}

}  // namespace functorch_ext
