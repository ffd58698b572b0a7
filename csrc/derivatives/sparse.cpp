// Products with a sparse matrix, which is a constant, where the other factor has a tangent.
#include "derivatives/sparse.h"

#include "batching/operators.h"
#include "batching/sparse.h"
#include "derivatives/products.h"
#include "derivatives/register.h"
#include "derivatives/with_tangent.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

bool has_tangent_beside_sparse(const at::Tensor& left, const at::Tensor& right) {
  return has_sparse_layout(left) != has_sparse_layout(right) &&
         any_tangent(has_sparse_layout(left) ? right : left) &&
         !any_differentiated(has_sparse_layout(left) ? left : right);
}

}  // namespace

std::optional<at::Tensor> sparse_product_with_tangent(Product product, const at::Tensor& left,
                                                      const at::Tensor& right) {
  if (!has_tangent_beside_sparse(left, right)) {
    return std::nullopt;
  }
  const bool sparse_left = has_sparse_layout(left);
  const auto of = [&](const at::Tensor& dense) {
    return sparse_left ? product(left, dense) : product(dense, right);
  };
  const auto [primal, tangent] = at::_unpack_dual(sparse_left ? right : left, /*level=*/0);
  return tangent._is_zerotensor() ? of(primal) : at::_make_dual(of(primal), of(tangent), 0);
}

namespace {

bool has_product_with_tangent(const at::Tensor&, const at::Tensor& left, const at::Tensor& right,
                              const at::Scalar&, const at::Scalar&) {
  return has_tangent_beside_sparse(left, right);
}

template <auto multiply>
at::Tensor sum_with_product(const at::Tensor& self, const at::Tensor& left, const at::Tensor& right,
                            const at::Scalar& beta, const at::Scalar& alpha) {
  const auto product = multiply(left, right) * alpha;
  return beta.equal(0) ? product : product + self * beta;
}

at::Tensor addmm(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& left,
                 const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  using OfSparse =
      ComputedWhen<at::_ops::addmm, has_product_with_tangent, sum_with_product<at::_ops::mm::call>>;
  return with_tangent(tangent_of_sum(self, left, right, beta, alpha),
                      [&] { return OfSparse::kernel(keys, self, left, right, beta, alpha); });
}

// The values of a sparse tensor, of which the gradient of one made from values consists.
at::Tensor values(c10::DispatchKeySet keys, const at::Tensor& self) {
  // Kernels below autograd read values, too.
  const bool is_recorded =
      c10::GradMode::is_enabled() && keys.has_any(c10::autograd_dispatch_keyset);
  TORCH_CHECK_NOT_IMPLEMENTED(
      !is_recorded || !any_differentiated(self),
      "functorch_ext: the values of a sparse tensor have no derivative, so one made from values "
      "has "
      "no second derivative by them: PyTorch would take it for zero. Fill a dense matrix instead: "
      "zeros.index_put((rows, columns), values, accumulate=True).");
  return at::_ops::_values::redispatch(below_derivatives(keys), self);
}

}  // namespace

void register_sparse_derivatives() {
  add_derivative_kernel<at::_ops::_values>(&values);
  // The gradient of a sparse factor isn't the same for sparse.mm and mm. But here it is constant.
  add_computed_when<at::_ops::_sparse_mm, has_tangent_beside_sparse, at::_ops::mm::call>();
  using at::_ops::mm, at::_ops::mv;
  add_computed_when<at::_ops::_sparse_addmm, has_product_with_tangent,
                    sum_with_product<mm::call>>();
  add_derivative_kernel<at::_ops::addmm>(functorch_ext::addmm);
  add_computed_when<at::_ops::addmv, has_product_with_tangent, sum_with_product<mv::call>>();
}

}  // namespace functorch_ext
