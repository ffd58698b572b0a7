// Linear algebra. Its operators take leading batch dimensions themselves.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/derivatives.h"

#include <ATen/ExpandUtils.h>

#include <algorithm>
#include <limits>

namespace functorch_ext {

namespace {

// A stack of matrices (or, with core 1, of vectors) with the samples in front and, behind them,
// dimensions of size 1 up to `stack_rank` stack dimensions of one sample: stacks line up from the
// right.
at::Tensor stacked(const at::Tensor& tensor, int64_t core, int64_t stack_rank, const Level& level) {
  auto value = expanded_at_front(tensor, level);
  for (auto missing = stack_rank - (tensor.dim() - core); missing > 0; --missing) {
    value = value.unsqueeze(1);
  }
  return value;
}

// Operators of several matrices; those arguments that are named are vectors (pivots, reflectors'
// coefficients).
template <class Signature>
struct Stacked;
template <class Return, class... Parameters>
struct Stacked<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    std::vector<c10::SymInt> stack;  // the stack dimensions of one sample
    int position = 0;
    const auto each_argument = [&](const auto& argument) {
      const auto core = core_of(op, position++);
      for_each_tensor(argument, [&](const at::Tensor& tensor) {
        const auto sizes = tensor.sym_sizes();
        stack = at::infer_size_symint(stack, sizes.slice(0, sizes.size() - core));
      });
    };
    (each_argument(arguments), ...);
    position = 0;
    const auto prepared = [&](const auto& argument) {
      const auto core = core_of(op, position++);
      if constexpr (std::is_same_v<std::decay_t<decltype(argument)>, at::Tensor>) {
        // Not every one of these operators broadcasts stacks, or reads vectors by their strides.
        const auto value = stacked(argument, core, static_cast<int64_t>(stack.size()), level);
        auto sizes = physical_sizes(stack, level);
        const auto core_sizes = argument.sym_sizes().slice(argument.dim() - core);
        sizes.insert(sizes.end(), core_sizes.begin(), core_sizes.end());
        const auto expanded = value.expand_symint(sizes);
        return core == 1 || has_single_stack(expanded) ? expanded.contiguous() : expanded;
      } else {
        return argument;
      }
    };
    std::tuple<std::decay_t<Parameters>...> values{prepared(arguments)...};
    return batched_result(std::apply(op.call, values), level);
  }

 private:
  // PyTorch's kernel of lu_solve trusts the stride of a stack dimension even if its size is 1.
  static bool has_single_stack(const at::Tensor& matrices) {
    const auto sizes = matrices.sym_sizes().slice(0, matrices.dim() - 2);
    return std::find(sizes.begin(), sizes.end(), 1) != sizes.end();
  }

  static int64_t core_of(const Operator<Return(Parameters...)>& op, int position) {
    return op.dims >> position & 1 ? 1 : 2;
  }
};

// The tolerances are numbers, one per matrix.
at::Tensor pinv_rule(Level& level, const at::Tensor& self, const std::optional<at::Tensor>& atol,
                     const std::optional<at::Tensor>& rtol, bool hermitian) {
  const auto tolerance = [&](const std::optional<at::Tensor>& given) {
    return given ? std::optional(stacked(*given, 0, self.dim() - 2, level)) : std::nullopt;
  };
  return wrap(
      at::linalg_pinv(expanded_at_front(self, level), tolerance(atol), tolerance(rtol), hermitian),
      0, level);
}

// A right-hand side may be a vector, which a batch of them must not be mistaken for a matrix.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> solve_rule(Level& level,
                                                                      const at::Tensor& matrix,
                                                                      const at::Tensor& right,
                                                                      bool left_side,
                                                                      bool check_errors) {
  const bool is_vector =
      right.dim() == 1 || (matrix.dim() - 1 == right.dim() &&
                           right.sym_sizes() == matrix.sym_sizes().slice(0, matrix.dim() - 1));
  auto columns = is_vector ? right.unsqueeze(-1) : right;
  const auto stack_rank = std::max(matrix.dim(), columns.dim()) - 2;
  const auto physical_matrix = stacked(matrix, 2, stack_rank, level);
  const auto physical_columns = stacked(columns, 2, stack_rank, level);
  auto [result, lu, pivots, info] =
      at::_linalg_solve_ex(physical_matrix, physical_columns, left_side, check_errors);
  return {wrap(is_vector ? result.squeeze(-1) : result, 0, level), wrap(lu, 0, level),
          wrap(pivots, 0, level), wrap(info, 0, level)};
}

double epsilon(at::ScalarType dtype) {
  return dtype == at::kDouble ? std::numeric_limits<double>::epsilon()
                              : std::numeric_limits<float>::epsilon();
}

// How many singular values are larger than the tolerance, which is a number for each matrix.
std::optional<at::Tensor> matrix_rank(Level&, const at::Tensor& self,
                                      const std::optional<at::Tensor>& atol,
                                      const std::optional<at::Tensor>& rtol, bool hermitian) {
  TORCH_CHECK(self.dim() >= 2, "linalg.matrix_rank: expected a matrix, got rank ", self.dim());
  if (self.sym_numel() == 0) {
    return std::nullopt;
  }
  const auto values = hermitian ? at::linalg_eigvalsh(self).abs() : at::linalg_svdvals(self);
  const auto largest = values.amax(-1);
  const auto shape = std::max(self.size(-2), self.size(-1));
  const auto usual = at::scalar_tensor(static_cast<double>(shape) * epsilon(values.scalar_type()),
                                       values.options());
  auto absolute = atol ? *atol : at::zeros({}, values.options());
  auto relative = rtol ? *rtol : atol ? at::where(absolute.gt(0), 0, usual) : usual;
  const auto tolerance = at::maximum(absolute.to(values.scalar_type()), relative * largest);
  return values.gt(tolerance.unsqueeze(-1)).sum(-1);
}

// Least squares. Right-hand sides of one matrix that all samples share are more columns; some
// results are empty, whichever driver fills them.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> lstsq_rule(
    Level& level, const at::Tensor& matrix, const at::Tensor& right, std::optional<double> rcond,
    std::optional<c10::string_view> driver) {
  const auto matrix_stack = matrix.sym_sizes().slice(0, matrix.dim() - 2);
  const bool is_vector =
      right.dim() == 1 || (matrix.dim() - 1 == right.dim() &&
                           right.sym_sizes() == matrix.sym_sizes().slice(0, matrix.dim() - 1));
  const auto columns = is_vector ? right.unsqueeze(-1) : right;
  const auto count = columns.sym_size(-1);
  const bool shared = !is_batched_at(matrix, level) &&
                      columns.sym_sizes().slice(0, columns.dim() - 2) == matrix_stack;
  if (shared) {
    const auto all = merge_into(at_front(columns, level), columns.dim() - 1);
    auto [solution, residuals, rank, singular_values] =
        at::linalg_lstsq(value_of(matrix, level), all, rcond, driver);
    const auto solutions = split_from(solution, columns.dim() - 1, level, count);
    residuals =
        residuals.sym_numel() == 0 && columns.sym_numel() != 0
            ? residuals.unsqueeze(0).expand_symint(physical_sizes(residuals.sym_sizes(), level))
            : split_from(residuals, residuals.dim() - 1, level, count);
    return {wrap(is_vector ? solutions.squeeze(-1) : solutions, 0, level),
            wrap(residuals, 0, level), wrap(rank, no_bdim, level),
            wrap(singular_values, no_bdim, level)};
  }
  const auto stack =
      at::infer_size_symint(matrix_stack, columns.sym_sizes().slice(0, columns.dim() - 2));
  const auto prepared = [&](const at::Tensor& tensor) {
    auto sizes = physical_sizes(stack, level);
    sizes.push_back(tensor.sym_size(-2));
    sizes.push_back(tensor.sym_size(-1));
    return stacked(tensor, 2, static_cast<int64_t>(stack.size()), level).expand_symint(sizes);
  };
  const auto [solution, residuals, rank, singular_values] =
      at::linalg_lstsq(prepared(matrix), prepared(columns), rcond, driver);
  const auto wrapped = [&](const at::Tensor& result) {
    return result.dim() == 1 && result.sym_size(0) == 0 && level.batch_size != 0
               ? wrap(result, no_bdim, level)
               : wrap(result, 0, level);
  };
  return {wrap(is_vector ? solution.squeeze(-1) : solution, 0, level), wrapped(residuals),
          wrapped(rank), wrapped(singular_values)};
}

// Weights of rows (or columns) with norms of their own. PyTorch's kernel for rows takes the samples
// as more rows; columns are computed step by step.
at::Tensor norm_of_rows(const at::Tensor& v, int64_t dim) {
  return at::norm_except_dim(v, 2, dim);
}

bool along_rows(const at::Tensor& v, int64_t dim) {
  return dim == 0 && v.dim() > 0;
}

std::tuple<at::Tensor, at::Tensor> weight_norm_rule(Level& level, const at::Tensor& v,
                                                    const at::Tensor& g, int64_t dim) {
  if (!along_rows(v, dim)) {
    const auto norms = norm_of_rows(v, dim);
    return {v * (g / norms), norms};
  }
  const auto rows = [&](const at::Tensor& tensor) {
    return merge_into(expanded_at_front(tensor, level), 0);
  };
  const auto [weight, norms] =
      at::_weight_norm_interface(rows(v).contiguous(), rows(g).contiguous(), 0);
  return {wrap(split_from(weight, 0, level, v.sym_size(0)), 0, level),
          wrap(split_from(norms, 0, level, v.sym_size(0)), 0, level)};
}

std::tuple<at::Tensor, at::Tensor> weight_norm_backward_rule(Level& level, const at::Tensor& grad_w,
                                                             const at::Tensor& v,
                                                             const at::Tensor& g,
                                                             const at::Tensor& norms, int64_t dim) {
  if (!along_rows(v, dim)) {
    std::vector<int64_t> others;
    for (int64_t each = 0; each < v.dim() - 1; ++each) {
      others.push_back(each);
    }
    const auto inner = (grad_w * v).sum(others, /*keepdim=*/true);
    return {(g / norms) * (grad_w - v * (inner / norms.pow(2))), inner / norms};
  }
  const auto rows = [&](const at::Tensor& tensor) {
    return merge_into(expanded_at_front(tensor, level), 0).contiguous();
  };
  const auto [of_v, of_g] =
      at::_weight_norm_interface_backward(rows(grad_w), rows(v), rows(g), rows(norms), 0);
  return {wrap(split_from(of_v, 0, level, v.sym_size(0)), 0, level),
          wrap(split_from(of_g, 0, level, v.sym_size(0)), 0, level)};
}

// PyTorch has no forward-mode formula for the operator.
std::optional<std::tuple<at::Tensor, at::Tensor>> weight_norm_steps(Level& level,
                                                                    const at::Tensor& v,
                                                                    const at::Tensor& g,
                                                                    int64_t dim) {
  if (level.forward_running == 0) {
    return std::nullopt;
  }
  const auto norms = norm_of_rows(v, dim);
  return std::make_tuple(v * (g / norms), norms);
}

// The errors of all samples at once.
void check_errors_rule(Level& level, const at::Tensor& info, std::string_view name,
                       bool is_matrix) {
  at::_linalg_check_errors(at_front(info, level), name, /*is_matrix=*/false);
}

at::Tensor matrix_exp_rule(Level& level, const at::Tensor& self) {
  return wrap(at::linalg_matrix_exp(at_front(self, level).contiguous()), 0, level);
}

// PyTorch writes powers into memory of its own, here they are put side by side.
at::Tensor powers(const at::Tensor& x, std::optional<int64_t> count, bool increasing) {
  const auto columns = count.value_or(x.size(0));
  const auto base = x.to(at::promote_types(x.scalar_type(), at::kLong)).unsqueeze(1);
  if (columns == 0) {
    return base.narrow(1, 0, 0);
  }
  const auto rising = at::cat({at::ones_like(base), base.expand({-1, columns - 1}).cumprod(1)}, 1);
  return increasing ? rising : rising.flip(1);
}

bool has_powers(const at::Tensor& x, std::optional<int64_t> count, bool) {
  return x.dim() == 1 && count.value_or(0) >= 0;
}

std::optional<at::Tensor> vander(Level&, const at::Tensor& x, std::optional<int64_t> count,
                                 bool increasing) {
  return has_powers(x, count, increasing) ? std::optional(powers(x, count, increasing))
                                          : std::nullopt;
}

}  // namespace

void register_linalg_rules() {
  using namespace at::_ops;
  add<linalg_cross, AlongDims>({"dim"});
  // Decompositions and functions of one matrix.
  add<linalg_inv_ex, Leading>();
  add<_linalg_det, Leading>();
  add<_linalg_slogdet, Leading>();
  add<linalg_cholesky_ex, Leading>();
  add<cholesky, Leading>();
  add<cholesky_inverse, Leading>();
  add<linalg_matrix_sqrth, Leading>();
  add<linalg_polar, Leading>();
  add<_linalg_svd, Leading>();
  add<_linalg_eigh, Leading>();
  add<linalg_eig, Leading>();
  add<_linalg_eigvals, Leading>();
  add<linalg_qr, Leading>();
  add<linalg_lu, Leading>();
  add<linalg_lu_factor_ex, Leading>();
  add<linalg_ldl_factor_ex, Leading>();
  add<linalg_matrix_exp>(matrix_exp_rule);
  add<geqrf, Leading>();
  add<linalg_pinv_atol_rtol_tensor>(pinv_rule);

  // Several matrices.
  add<_linalg_solve_ex>(solve_rule);
  add<linalg_solve_triangular, Stacked>();
  add<triangular_solve, Stacked>();
  add<cholesky_solve, Stacked>();
  add<_cholesky_solve_helper, Stacked>();
  add<linalg_lu_solve, Stacked>({"pivots"});
  add<linalg_ldl_solve, Stacked>({"pivots"});
  add<lu_unpack, Stacked>({"LU_pivots"});
  add<linalg_householder_product, Stacked>({"tau"});
  add<ormqr, Stacked>({"input2"});

  add_decomposition<linalg_matrix_rank_atol_rtol_tensor>(matrix_rank);
  add_decomposition<at::_ops::vander>(functorch_ext::vander);
  add_computed_when<at::_ops::vander, has_powers, powers>();
  add<linalg_lstsq>(lstsq_rule);
  add<_weight_norm_interface>(weight_norm_rule, weight_norm_steps);
  add<_weight_norm_interface_backward>(weight_norm_backward_rule);

  add<_linalg_check_errors>(check_errors_rule);
}

}  // namespace functorch_ext
