#include "batching/sparse_matmul.h"

#include "batching/families.h"
#include "batching/operators.h"
#include "engine/below_all_levels.h"
#include "engine/derivatives.h"

namespace functorch_ext {

bool is_sparse(const at::Tensor& tensor) {
  return below_all_levels(tensor).layout() != at::kStrided;
}

at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right) {
  if (is_batched_at(left, level) && is_sparse(left)) {
    return wrap(at::bmm(at_front(left, level), expanded_at_front(right, level)), 0, level);
  }
  TORCH_CHECK(
      !is_batched_at(right, level) || !is_sparse(right),
      "functorch_ext.vmap: a product with a sparse matrix on the right that differs between "
      "samples. Transpose the product: (sparse.t() @ dense.t()).t().");
  if (is_batched_at(right, level)) {
    const auto columns = merge_into(at_front(right, level), 1);
    const auto product = at::mm(value_of(left, level), columns);
    return wrap(split_from(product, 1, level, right.sym_size(1)), 0, level);
  }
  const auto rows = merge_into(at_front(left, level), 0);
  const auto product = at::mm(rows, value_of(right, level));
  return wrap(split_from(product, 0, level, left.sym_size(0)), 0, level);
}

namespace {

bool has_tangent_beside_sparse(const at::Tensor& left, const at::Tensor& right) {
  return is_sparse(left) != is_sparse(right) && any_tangent(is_sparse(left) ? right : left) &&
         !any_differentiated(is_sparse(left) ? left : right);
}

}  // namespace

std::optional<at::Tensor> sparse_product_with_tangent(Product product, const at::Tensor& left,
                                                      const at::Tensor& right) {
  if (!has_tangent_beside_sparse(left, right)) {
    return std::nullopt;
  }
  const bool sparse_left = is_sparse(left);
  const auto of = [&](const at::Tensor& dense) {
    return sparse_left ? product(left, dense) : product(dense, right);
  };
  const auto [primal, tangent] = at::_unpack_dual(sparse_left ? right : left, /*level=*/0);
  return tangent._is_zerotensor() ? of(primal) : at::_make_dual(of(primal), of(tangent), 0);
}

namespace {

// What torch.sparse.mm is made of. The gradient of its sparse factor is sparse too, unlike mm's.
at::Tensor sparse_addmm(Level& level, const at::Tensor& self, const at::Tensor& sparse,
                        const at::Tensor& dense, const at::Scalar& beta, const at::Scalar& alpha) {
  const c10::SymInt shape[] = {sparse.sym_size(0), dense.sym_size(1)};
  const auto given = expanded_at_front(self.expand_symint(shape), level);
  const auto result =
      at::_sparse_addmm(merge_into(given, 1), value_of(sparse, level),
                        merge_into(expanded_at_front(dense, level), 1), beta, alpha);
  return wrap(split_from(result, 1, level, dense.sym_size(1)), 0, level);
}

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

}  // namespace

void register_sparse_matmul_rules() {
  add<at::_ops::_sparse_addmm>(sparse_addmm);
  // The gradient of a sparse factor isn't the same for sparse.mm and mm. But here it is constant.
  add_computed_when<at::_ops::_sparse_mm, has_tangent_beside_sparse, at::_ops::mm::call>();
  using at::_ops::mm, at::_ops::mv;
  add_computed_when<at::_ops::_sparse_addmm, has_product_with_tangent,
                    sum_with_product<mm::call>>();
  add_computed_when<at::_ops::addmm, has_product_with_tangent, sum_with_product<mm::call>>();
  add_computed_when<at::_ops::addmv, has_product_with_tangent, sum_with_product<mv::call>>();
}

}  // namespace functorch_ext
