// Linear algebra, by factorizations that can be differentiated any number of times.
#include <tuple>

#include "derivatives/register.h"
#include "derivatives/second_order.h"

namespace functorch_ext {

namespace {

// LU factorizations and products would take other matrices as well.
void check_square(const at::Tensor& matrix, const char* name) {
  TORCH_CHECK(matrix.dim() >= 2, name, ": The input tensor A must have at least 2 dimensions.");
  TORCH_CHECK(matrix.sym_size(-1) == matrix.sym_size(-2), name,
              ": A must be batches of square matrices, but they are ", matrix.sym_size(-2), " by ",
              matrix.sym_size(-1), " matrices");
}

// The diagonal of U, and the sign of the permutation, of A = P L U.
struct Factors {
  Factors(const at::Tensor& matrix, const char* name) {
    check_square(matrix, name);
    std::tie(lu, pivots) = at::linalg_lu_factor(matrix);
    diagonal = lu.diagonal(0, -2, -1);
    const auto unmoved = at::arange(1, pivots.sym_size(-1) + 1, pivots.options());
    const auto swaps = (pivots != unmoved).sum(-1);
    sign = (1 - 2 * swaps.remainder(2)).to(matrix.scalar_type());
  }
  at::Tensor lu;
  at::Tensor pivots;
  at::Tensor diagonal;
  at::Tensor sign;
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> det(const at::Tensor& matrix) {
  const Factors factors(matrix, "linalg.det");
  return {factors.diagonal.prod(-1) * factors.sign, factors.lu.detach(), factors.pivots};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> slogdet(const at::Tensor& matrix) {
  const Factors factors(matrix, "linalg.slogdet");
  return {factors.diagonal.sgn().prod(-1) * factors.sign, factors.diagonal.abs().log().sum(-1),
          factors.lu.detach(), factors.pivots};
}

bool is_vector_on_the_right(const at::Tensor& matrix, const at::Tensor& right) {
  return right.dim() == 1 || (matrix.dim() - 1 == right.dim() &&
                              matrix.sym_sizes().slice(0, right.dim()) == right.sym_sizes());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> solve(const at::Tensor& matrix,
                                                                 const at::Tensor& right, bool left,
                                                                 bool check_errors) {
  auto [lu, pivots, info] = at::linalg_lu_factor_ex(matrix, /*pivot=*/true, check_errors);
  const bool is_vector = is_vector_on_the_right(matrix, right);
  const auto columns = is_vector ? right.unsqueeze(-1) : right;
  const auto result = at::linalg_lu_solve(lu, pivots, columns, left);
  return {is_vector ? result.squeeze(-1) : result, lu.detach(), pivots, info};
}

std::tuple<at::Tensor, at::Tensor> triangular_solve(const at::Tensor& right,
                                                    const at::Tensor& matrix, bool upper,
                                                    bool transpose, bool unitriangular) {
  const auto triangle = transpose ? matrix.mT() : matrix;
  auto result = at::linalg_solve_triangular(triangle, right, /*upper=*/upper != transpose,
                                            /*left=*/true, unitriangular);
  return {result, matrix.clone()};
}

// The inverse of L L^H, or of U^H U. PyTorch's tangents of it are wrong in the first place, and so
// are gradients by a matrix whose other triangle isn't zero.
at::Tensor cholesky_inverse(const at::Tensor& factor, bool upper) {
  const auto identity = at::eye_symint(factor.sym_size(-1), factor.options());
  const auto inverse = at::linalg_solve_triangular(factor, identity.expand_as(factor), upper);
  return upper ? at::matmul(inverse, inverse.mH()) : at::matmul(inverse.mH(), inverse);
}

// What the operator reads: one triangle. Derivatives take the matrix as a whole.
at::Tensor hermitian(const at::Tensor& matrix, c10::string_view triangle) {
  const auto given = matrix.detach();
  const bool lower = triangle == "L" || triangle == "l";
  const auto read = lower ? given.tril() : given.triu();
  const auto mirrored = lower ? given.tril(-1).mH() : given.triu(1).mH();
  return matrix + (read + mirrored - given);
}

// A Newton step towards the eigenvectors; each doubles the digits, and the derivatives, that hold.
// (Ogita and Aishima, "Iterative refinement for symmetric eigenvalue decomposition", 2018.)
std::tuple<at::Tensor, at::Tensor> refined(const at::Tensor& matrix, const at::Tensor& vectors) {
  const auto size = matrix.sym_size(-1);
  const auto same = at::eye_symint(size, matrix.options().dtype(at::kBool));
  const auto defect = at::eye_symint(size, matrix.options()) - at::matmul(vectors.mH(), vectors);
  const auto projected = at::matmul(vectors.mH(), at::matmul(matrix, vectors));
  const auto diagonal = [](const at::Tensor& tensor) {
    return at::real(tensor.diagonal(0, -2, -1));
  };
  const auto values = diagonal(projected) / (1 - diagonal(defect));
  const auto gaps = (values.unsqueeze(-2) - values.unsqueeze(-1)).masked_fill(same, 1);
  const auto off_diagonal = (projected + values.unsqueeze(-2) * defect) / gaps;
  const auto step = at::where(same, defect / 2, off_diagonal);
  return {values, vectors + at::matmul(vectors, step)};
}

std::tuple<at::Tensor, at::Tensor> eigh(const at::Tensor& matrix, c10::string_view triangle, bool) {
  check_square(matrix, "linalg.eigh");
  const auto full = hermitian(matrix, triangle);
  auto [values, vectors] = at::_linalg_eigh(full.detach(), triangle, /*compute_v=*/true);
  // Derivatives hold up to the third order after the second step.
  std::tie(values, vectors) = refined(full, vectors);
  return refined(full, vectors);
}

// The same for a matrix that isn't Hermitian. Where only the directions matter: nothing keeps the
// vectors at length 1.
std::tuple<at::Tensor, at::Tensor> refined_directions(const at::Tensor& matrix,
                                                      const at::Tensor& vectors) {
  const auto projected = at::linalg_solve(vectors, at::matmul(matrix, vectors));
  const auto same =
      at::eye_symint(matrix.sym_size(-1), matrix.options().dtype(at::kBool)).expand_as(projected);
  const auto values = projected.diagonal(0, -2, -1);
  const auto gaps = (values.unsqueeze(-2) - values.unsqueeze(-1)).masked_fill(same, 1);
  const auto step = (projected / gaps).masked_fill(same, 0);
  return {values, vectors + at::matmul(vectors, step)};
}

std::tuple<at::Tensor, at::Tensor> eig(const at::Tensor& self) {
  const auto matrix = self.to(c10::toComplexType(self.scalar_type()));
  auto [values, vectors] = at::linalg_eig(self.detach());
  std::tie(values, vectors) = refined_directions(matrix, vectors);
  std::tie(values, vectors) = refined_directions(matrix, vectors);
  return {values, vectors / at::linalg_vector_norm(vectors, 2, at::IntArrayRef{-2}, true)};
}

// The first columns of the product of I - tau_i v_i v_i^H, where v_i is column i below a 1.
at::Tensor householder_product(const at::Tensor& input, const at::Tensor& tau) {
  constexpr auto name = "torch.linalg.householder_product";
  TORCH_CHECK(input.dim() >= 2, name, ": input must have at least 2 dimensions.");
  const auto rows = input.size(-2), columns = input.size(-1);
  TORCH_CHECK(rows >= columns, name,
              ": input.shape[-2] must be greater than or equal to input.shape[-1]");
  TORCH_CHECK(columns >= tau.size(-1), name,
              ": input.shape[-1] must be greater than or equal to tau.shape[-1]");
  TORCH_CHECK(input.dim() - tau.dim() == 1 &&
                  tau.sizes().slice(0, tau.dim() - 1) == input.sizes().slice(0, tau.dim() - 1),
              name, ": Expected batch dimensions of tau to be those of input, but got ",
              tau.sizes(), " and ", input.sizes());
  const auto identity = at::eye(rows, columns, input.options());
  const auto reflectors = input.tril(-1) + identity;
  auto product = identity.expand_as(input);
  for (int64_t i = tau.size(-1) - 1; i >= 0; --i) {
    const auto v = reflectors.narrow(-1, i, 1);
    const auto scaled = v * tau.narrow(-1, i, 1).unsqueeze(-1);
    product = product - at::matmul(scaled, at::matmul(v.mH(), product));
  }
  return product;
}

// Some drivers return the singular values of the matrix too, as constants.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> lstsq(
    c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& right,
    std::optional<double> rcond, std::optional<c10::string_view> driver) {
  auto results =
      at::_ops::linalg_lstsq::redispatch(below_derivatives(keys), self, right, rcond, driver);
  auto& singular_values = std::get<3>(results);
  if (singular_values.sym_numel() > 0 && any_differentiated(self)) {
    singular_values = at::linalg_svdvals(self);
  }
  return results;
}

}  // namespace

void register_linalg_derivatives() {
  add_second_order<at::_ops::_linalg_det, det>();
  add_second_order<at::_ops::_linalg_slogdet, slogdet>();
  add_second_order<at::_ops::_linalg_solve_ex, solve>();
  add_second_order<at::_ops::triangular_solve, triangular_solve>();
  add_second_order<at::_ops::_linalg_eigh, eigh>();
  add_second_order<at::_ops::linalg_eig, eig>();
  add_second_order<at::_ops::linalg_householder_product, householder_product>();
  add_computed_when<at::_ops::cholesky_inverse, is_differentiated_here, cholesky_inverse>();
  add_derivative_kernel<at::_ops::linalg_lstsq>(&lstsq);
}

}  // namespace functorch_ext
