// Linear algebra. Its operators take leading batch dimensions themselves.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

#include <ATen/ExpandUtils.h>

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
        return core == 1 ? expanded.contiguous() : expanded;
      } else {
        return argument;
      }
    };
    std::tuple<std::decay_t<Parameters>...> values{prepared(arguments)...};
    return batched_result(std::apply(op.call, values), level);
  }

 private:
  static int64_t core_of(const Operator<Return(Parameters...)>& op, int position) {
    return op.dims >> position & 1 ? 1 : 2;
  }
};

// The tolerances are numbers, one per matrix.
at::Tensor pinv(Level& level, const at::Tensor& self, const std::optional<at::Tensor>& atol,
                const std::optional<at::Tensor>& rtol, bool hermitian) {
  const auto tolerance = [&](const std::optional<at::Tensor>& given) {
    return given ? std::optional(stacked(*given, 0, self.dim() - 2, level)) : std::nullopt;
  };
  return wrap(
      at::linalg_pinv(expanded_at_front(self, level), tolerance(atol), tolerance(rtol), hermitian),
      0, level);
}

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
  const auto stack_rank = std::max(matrix.dim(), columns.dim()) - 2;
  const auto physical_matrix = stacked(matrix, 2, stack_rank, level);
  const auto physical_columns = stacked(columns, 2, stack_rank, level);
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
  return wrap(at::linalg_matrix_exp(at_front(self, level).contiguous()), 0, level);
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
  add<linalg_pinv_atol_rtol_tensor>(pinv);

  // Several matrices.
  add<_linalg_solve_ex>(solve);
  add<linalg_solve_triangular, Stacked>();
  add<triangular_solve, Stacked>();
  add<cholesky_solve, Stacked>();
  add<_cholesky_solve_helper, Stacked>();
  add<linalg_lu_solve, Stacked>({"pivots"});
  add<linalg_ldl_solve, Stacked>({"pivots"});
  add<lu_unpack, Stacked>({"LU_pivots"});
  add<linalg_householder_product, Stacked>({"tau"});
  add<ormqr, Stacked>({"input2"});

  add<_linalg_check_errors>(check_errors);
}

}  // namespace functorch_ext
