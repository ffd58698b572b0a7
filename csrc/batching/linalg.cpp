// Linear algebra. Its operators take leading batch dimensions themselves.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Operators of several matrices that don't broadcast: all get the batch dimension.
template <class Signature>
struct LeadingExpanded;
template <class Return, class... Parameters>
struct LeadingExpanded<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    return batched_result(
        call_rewritten<Return, Parameters...>(
            op.call, [&](const at::Tensor& tensor) { return expanded_at_front(tensor, level); },
            std::forward<Parameters>(arguments)...),
        level);
  }
};

// A right-hand side may be a vector, which a batch of them must not be mistaken for a matrix.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> solve(Level& level,
                                                                 const at::Tensor& matrix,
                                                                 const at::Tensor& right,
                                                                 bool left_side,
                                                                 bool check_errors) {
  const bool is_vector =
      right.dim() == 1 || (matrix.dim() - 1 == right.dim() &&
                           right.sym_sizes() == matrix.sym_sizes().slice(0, matrix.dim() - 1));
  auto columns = is_vector ? right.unsqueeze(-1) : right;
  const auto rank = std::max(matrix.dim(), columns.dim());
  const auto physical_matrix = is_batched_at(matrix, level) ? aligned(matrix, rank, level)
                                                            : expanded_at_front(matrix, level);
  const auto physical_columns = is_batched_at(columns, level) ? aligned(columns, rank, level)
                                                              : expanded_at_front(columns, level);
  auto [result, lu, pivots, info] =
      at::_linalg_solve_ex(physical_matrix, physical_columns, left_side, check_errors);
  return {wrap(is_vector ? result.squeeze(-1) : result, 0, level), wrap(lu, 0, level),
          wrap(pivots, 0, level), wrap(info, 0, level)};
}

// The errors of all samples at once.
void check_errors(Level& level, const at::Tensor& info, std::string_view name, bool is_matrix) {
  at::_linalg_check_errors(at_front(info, level), name, /*is_matrix=*/false);
}

at::Tensor matrix_exp(Level& level, const at::Tensor& self) {
  return wrap(at::linalg_matrix_exp(at_front(self, level)), 0, level);
}

}  // namespace

void register_linalg_rules() {
  using namespace at::_ops;
  // Decompositions and functions of one matrix.
  add<linalg_inv_ex, Leading>();
  add<_linalg_det, Leading>();
  add<_linalg_slogdet, Leading>();
  add<linalg_cholesky_ex, Leading>();
  add<cholesky, Leading>();
  add<cholesky_inverse, Leading>();
  add<_linalg_svd, Leading>();
  add<_linalg_eigh, Leading>();
  add<linalg_eig, Leading>();
  add<_linalg_eigvals, Leading>();
  add<linalg_qr, Leading>();
  add<linalg_lu, Leading>();
  add<linalg_lu_factor_ex, Leading>();
  add<linalg_ldl_factor_ex, Leading>();
  add<linalg_matrix_exp>(matrix_exp);
  add<geqrf, Leading>();
  add<linalg_pinv_atol_rtol_tensor, LeadingExpanded>();

  // Several matrices.
  add<_linalg_solve_ex>(solve);
  add<linalg_solve_triangular, LeadingExpanded>();
  add<triangular_solve, LeadingExpanded>();
  add<cholesky_solve, LeadingExpanded>();
  add<_cholesky_solve_helper, LeadingExpanded>();
  add<linalg_lu_solve, LeadingExpanded>();
  add<linalg_ldl_solve, LeadingExpanded>();
  add<lu_unpack, LeadingExpanded>();
  add<linalg_householder_product, LeadingExpanded>();
  add<ormqr, LeadingExpanded>();

  add<_linalg_check_errors>(check_errors);
}

}  // namespace functorch_ext
