#include "batching/sparse_matmul.h"

#include "batching/families.h"
#include "batching/operators.h"
#include "engine/derivatives.h"

namespace functorch_ext {

bool is_sparse(const at::Tensor& tensor) {
  return tensor.layout() != at::kStrided;
}

at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right) {
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

// PyTorch has no formula for tangents through torch.sparse.mm, but has one for mm. (The gradient of
// the sparse factor isn't the same.)
bool has_tangents_beside_constant_sparse(const at::Tensor& left, const at::Tensor& right) {
  const auto is_constant = [](const at::Tensor& factor) { return !any_differentiated(factor); };
  return any_tangent(left, right) && is_sparse(left) != is_sparse(right) &&
         is_constant(is_sparse(left) ? left : right);
}

}  // namespace

void register_sparse_matmul_rules() {
  add<at::_ops::_sparse_addmm>(sparse_addmm);
  add_computed_when<at::_ops::_sparse_mm, has_tangents_beside_constant_sparse,
                    at::_ops::mm::call>();
}

}  // namespace functorch_ext
