#include "batching/sparse.h"

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/below_all_levels.h"

namespace functorch_ext {

bool has_sparse_layout(const at::Tensor& tensor) {
  return below_all_levels(tensor).layout() != at::kStrided;
}

namespace {

bool is_batched_sparse(const at::Tensor& tensor, const Level& level) {
  return is_batched_at(tensor, level) && has_sparse_layout(tensor);
}

// A product one of whose factors is a sparse matrix for each sample.
at::Tensor product_of_sparse_samples(Level& level, const at::Tensor& left,
                                     const at::Tensor& right) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !has_sparse_layout(left) || !has_sparse_layout(right),
      "functorch_ext.vmap: a product of two sparse matrices, of which one differs between samples. "
      "Make one of them dense, with to_dense().");
  if (is_batched_sparse(left, level)) {
    return wrap(at::bmm(at_front(left, level), expanded_at_front(right, level)), 0, level);
  }
  const auto transposed = at::bmm(at_front(right, level).transpose(1, 2),
                                  expanded_at_front(left, level).transpose(1, 2));
  return wrap(transposed.transpose(1, 2), 0, level);
}

}  // namespace

at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right) {
  if (is_batched_sparse(left, level) || is_batched_sparse(right, level)) {
    return product_of_sparse_samples(level, left, right);
  }
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
at::Tensor sparse_addmm_rule(Level& level, const at::Tensor& self, const at::Tensor& sparse,
                             const at::Tensor& dense, const at::Scalar& beta,
                             const at::Scalar& alpha) {
  if (is_batched_sparse(sparse, level) || is_batched_sparse(dense, level)) {
    return self * beta + product_of_sparse_samples(level, sparse, dense) * alpha;
  }
  const c10::SymInt shape[] = {sparse.sym_size(0), dense.sym_size(1)};
  const auto given = expanded_at_front(self.expand_symint(shape), level);
  const auto result =
      at::_sparse_addmm(merge_into(given, 1), value_of(sparse, level),
                        merge_into(expanded_at_front(dense, level), 1), beta, alpha);
  return wrap(split_from(result, 1, level, dense.sym_size(1)), 0, level);
}

at::Tensor to_dense_rule(Level& level, const at::Tensor& self, std::optional<at::ScalarType> dtype,
                         std::optional<bool> masked_grad) {
  return wrap(at::_ops::_to_dense::call(at_front(self, level), dtype, masked_grad), 0, level);
}

// Wrappers don't say that their values are sparse: PyTorch would take them for dense already.
std::optional<at::Tensor> to_dense(Level&, const at::Tensor& self,
                                   std::optional<at::ScalarType> dtype,
                                   std::optional<bool> masked_grad) {
  return has_sparse_layout(self)
             ? std::optional(at::_ops::_to_dense::call(self, dtype, masked_grad))
             : std::nullopt;
}

at::Tensor coalesce_rule(Level& level, const at::Tensor& self) {
  return wrap(at::_ops::_coalesce::call(at_front(self, level)), 0, level);
}

std::optional<at::Tensor> coalesce(Level&, const at::Tensor& self) {
  return has_sparse_layout(self) ? std::optional(at::_ops::_coalesce::call(self)) : std::nullopt;
}

// Samples have as many values as their matrix has places that aren't zero, together.
at::Tensor values_rule(Level&, const at::Tensor&) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false,
      "functorch_ext.vmap: the values of a sparse tensor that differs between samples, which its "
      "gradient needs, have no batching rule. Fill a dense matrix instead: "
      "zeros.index_put((rows, columns), values, accumulate=True).");
}

// Results that aren't strided can't hold samples.
template <class Signature>
struct NotStrided;
template <class Return, class... Parameters>
struct NotStrided<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level&, Parameters...) {
    TORCH_CHECK(false, "functorch_ext.vmap: ", op.handle.operator_name(),
                " of a batched tensor: what is zero differs between samples, so sparse samples "
                "don't fit together. Return the dense tensor and call to_sparse() on the result "
                "of vmap.");
  }
};

}  // namespace

void register_sparse_rules() {
  add<at::_ops::_to_sparse, NotStrided>();
  add<at::_ops::_to_sparse_sparse_dim, NotStrided>();
  add<at::_ops::_to_sparse_csr, NotStrided>();
  add<at::_ops::_to_sparse_csc, NotStrided>();
  add<at::_ops::_to_sparse_bsr, NotStrided>();
  add<at::_ops::_to_sparse_bsc, NotStrided>();
  add<at::_ops::_sparse_addmm>(sparse_addmm_rule);
  add<at::_ops::_to_dense>(to_dense_rule);
  add_decomposition<at::_ops::to_dense>(to_dense);
  add<at::_ops::_coalesce>(coalesce_rule);
  add_decomposition<at::_ops::coalesce>(coalesce);
  add<at::_ops::_values>(values_rule);
}

}  // namespace functorch_ext
