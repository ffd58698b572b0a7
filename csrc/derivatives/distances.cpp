// Distances, of which PyTorch has first derivatives of reverse mode alone.
#include "derivatives/pulled_back.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

at::Tensor lengths_of(const at::Tensor& differences, double p) {
  return differences.sym_size(-1) == 0 ? differences.sum(-1)
                                       : at::linalg_vector_norm(differences, p, {-1});
}

at::Tensor distances(const at::Tensor& x1, const at::Tensor& x2, double p, std::optional<int64_t>) {
  return lengths_of(x1.unsqueeze(-2) - x2.unsqueeze(-3), p);
}

at::Tensor pair_distances(const at::Tensor& rows, double p) {
  const auto count = rows.size(0);
  const auto pairs = at::triu_indices(count, count, 1, rows.options().dtype(at::kLong));
  return lengths_of(rows.index_select(0, pairs[0]) - rows.index_select(0, pairs[1]), p);
}

at::Tensor cdist_backward(const at::Tensor& grad, const at::Tensor& x1, const at::Tensor& x2,
                          double p, const at::Tensor&) {
  return pulled_back([&](const at::Tensor& x) { return distances(x, x2, p, {}); }, x1, grad, {x2});
}

at::Tensor pdist_backward(const at::Tensor& grad, const at::Tensor& rows, double p,
                          const at::Tensor&) {
  return pulled_back([&](const at::Tensor& x) { return pair_distances(x, p); }, rows, grad);
}

}  // namespace

void register_distances_derivatives() {
  add_computed_when<at::_ops::_cdist_forward, has_tangents, distances>();
  add_computed_when<at::_ops::_pdist_forward, has_tangents, pair_distances>();
  add_computed_when<at::_ops::_cdist_backward, is_differentiated_here, cdist_backward>();
  add_computed_when<at::_ops::_pdist_backward, is_differentiated_here, pdist_backward>();
}

}  // namespace functorch_ext
