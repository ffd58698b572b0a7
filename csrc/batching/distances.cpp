// Distances between the rows of matrices.
#include <ATen/ExpandUtils.h>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// The gradient with respect to x1 of the distances between the rows of x1 and x2; matrices have
// batch dimensions in front, which broadcast.
at::Tensor cdist_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& x1,
                               const at::Tensor& x2, double p, const at::Tensor& cdist) {
  const auto rank = largest_rank(grad, x1, x2, cdist);
  const auto distances = aligned(cdist, rank, level);
  const auto gradient = aligned(grad, rank, level);
  auto left = aligned(x1, rank, level);
  auto right = aligned(x2, rank, level);
  // All batch dimensions that appear anywhere, with the samples in front.
  std::vector<c10::SymInt> sizes = {level.batch_size};
  for (int64_t dim = 0; dim < rank - 2; ++dim) {
    sizes.push_back(1);
  }
  for (const auto& tensor : {distances, gradient, left, right}) {
    const auto batch = tensor.sym_sizes().slice(0, tensor.dim() - 2);
    const auto both = at::infer_size_symdimvector(sizes, batch);
    sizes.assign(both.begin(), both.end());
  }
  const auto expanded = [&](const at::Tensor& tensor) {
    auto shape = sizes;
    shape.push_back(tensor.sym_size(-2));
    shape.push_back(tensor.sym_size(-1));
    return tensor.expand_symint(shape).contiguous();
  };
  const auto result = at::_cdist_backward(expanded(gradient), expanded(left), expanded(right), p,
                                          expanded(distances));
  // Where x1 was broadcast, autograd wants the gradient of x1 itself.
  auto shape = physical_sizes(x1.sym_sizes(), level);
  while (static_cast<int64_t>(shape.size()) < rank + 1) {
    shape.insert(shape.begin() + 1, 1);
  }
  const auto summed = at::sum_to(result, c10::SymIntArrayRef(shape));
  return wrap(summed.reshape_symint(physical_sizes(x1.sym_sizes(), level)), 0, level);
}

// The distances between all pairs of rows of a matrix are those above the diagonal of cdist.
at::Tensor pairs_of(const at::Tensor& rows) {
  return at::triu_indices(rows.size(1), rows.size(1), 1, rows.options().dtype(at::kLong));
}

OptionalTensors above_diagonal(const at::Tensor& pairs) {
  return OptionalTensors({std::nullopt, std::optional(pairs[0]), std::optional(pairs[1])});
}

at::Tensor pdist_rule(Level& level, const at::Tensor& self, double p) {
  const auto rows = at_front(self, level).contiguous();
  const auto distances = at::_cdist_forward(rows, rows, p, std::nullopt);
  return wrap(at::index(distances, above_diagonal(pairs_of(rows))), 0, level);
}

at::Tensor pdist_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& self,
                               double p, const at::Tensor& pdist) {
  const auto rows = expanded_at_front(self, level).contiguous();
  const auto where = above_diagonal(pairs_of(rows));
  const auto symmetric = [&](const at::Tensor& of_pairs) {
    const auto square =
        at::zeros_symint({level.batch_size, rows.sym_size(1), rows.sym_size(1)}, rows.options());
    const auto upper = at::index_put(square, where, expanded_at_front(of_pairs, level));
    return upper + upper.mT();
  };
  return wrap(at::_cdist_backward(symmetric(grad), rows, rows, p, symmetric(pdist)), 0, level);
}

}  // namespace

void register_distances_rules() {
  add<at::_ops::_cdist_forward, Leading>();
  add<at::_ops::_euclidean_dist, Leading>();
  add<at::_ops::_cdist_backward>(cdist_backward_rule);
  add<at::_ops::_pdist_forward>(pdist_rule);
  add<at::_ops::_pdist_backward>(pdist_backward_rule);
}

}  // namespace functorch_ext
