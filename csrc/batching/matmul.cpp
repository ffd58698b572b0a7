// Products of matrices and vectors. A batch on one side only joins the rows (or columns) of one
// larger product; a batch on both sides is a product of stacks.
#include <ATen/autocast_mode.h>

#include "batching/families.h"
#include "batching/large_memory.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/sparse.h"
#include "batching/stacked_products.h"
#include "derivatives/linear.h"

namespace functorch_ext {

namespace {

// Stacks of matrices, (B, n, k) and (B, k, m). With k = 1, as in the gradient of a weight by one
// vector, the products are outer ones, which need no library for matrices.
at::Tensor stacked_product(const at::Tensor& left, const at::Tensor& right) {
  if (left.sym_size(2) == 1) {
    return at::mul(left, right);
  }
  const auto numbers = left.sym_size(0) * left.sym_size(1) * right.sym_size(2);
  if (numbers > (1 << 18) && is_readable(left) && is_readable(right)) {
    const auto product =
        empty_in_large_pages({left.size(0), left.size(1), right.size(2)}, left.options());
    multiply_stacks(product, left, right);
    return product;
  }
  return product_of_stacks(left, right);
}

at::Tensor mm_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  TORCH_CHECK(self.dim() == 2, "self must be a matrix, but it is ", self.dim(), "D");
  TORCH_CHECK(other.dim() == 2, "mat2 must be a matrix, but it is ", other.dim(), "D");
  if (has_sparse_layout(self) || has_sparse_layout(other)) {
    return sparse_mm(level, self, other);
  }
  const auto left = at_front(self, level);
  const auto right = at_front(other, level);
  if (left.dim() == 3 && right.dim() == 3) {
    return wrap(stacked_product(left, right), 0, level);
  }
  return wrap(at::matmul(left, right), 0, level);
}

at::Tensor bmm_rule(const Operator<at::_ops::bmm::schema>& op, Level& level, const at::Tensor& self,
                    const at::Tensor& other) {
  if (C10_UNLIKELY(has_sparse_layout(self))) {
    return op.loop(self, other);
  }
  TORCH_CHECK(self.dim() == 3, "batch1 must be a 3D tensor, but it is ", self.dim(), "D");
  TORCH_CHECK(other.dim() == 3, "batch2 must be a 3D tensor, but it is ", other.dim(), "D");
  const bool self_batched = is_batched_at(self, level);
  const auto left = at_front(self, level);
  const auto right = at_front(other, level);
  if (self_batched && is_batched_at(other, level)) {
    return wrap(
        split_from(at::bmm(merge_into(left, 0), merge_into(right, 0)), 0, level, self.sym_size(0)),
        0, level);
  }
  if (self_batched) {
    return wrap(split_from(at::bmm(merge_into(left, 1), right), 1, level, self.sym_size(1)), 0,
                level);
  }
  return wrap(split_from(at::bmm(left, merge_into(right, 2)), 2, level, other.sym_size(2)), 0,
              level);
}

at::Tensor mv_rule(Level& level, const at::Tensor& self, const at::Tensor& vector) {
  TORCH_CHECK(self.dim() == 2 && vector.dim() == 1, "mv: expected a matrix and a vector, but got ",
              self.dim(), "D and ", vector.dim(), "D tensors");
  const auto matrix = at_front(self, level);
  const auto right = at_front(vector, level);
  if (!is_batched_at(vector, level)) {
    return wrap(at::matmul(matrix, right), 0, level);
  }
  if (!is_batched_at(self, level)) {
    return wrap(at::mm(right, matrix.t()), 0, level);
  }
  return wrap(at::bmm(matrix, right.unsqueeze(-1)).squeeze(-1), 0, level);
}

at::Tensor dot_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  TORCH_CHECK(self.dim() == 1 && other.dim() == 1, "1D tensors expected, but got ", self.dim(),
              "D and ", other.dim(), "D tensors");
  const auto left = at_front(self, level);
  const auto right = at_front(other, level);
  if (!is_batched_at(self, level)) {
    return wrap(at::mv(right, left), 0, level);
  }
  if (!is_batched_at(other, level)) {
    return wrap(at::mv(left, right), 0, level);
  }
  return wrap(at::bmm(left.unsqueeze(1), right.unsqueeze(2)).flatten(), 0, level);
}

at::Tensor vdot_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  return at::dot(self.conj(), other);
}

// alpha * product + beta * self. With beta 0, self doesn't count even where it is not a number.
at::Tensor add_scaled(const at::Tensor& self, const at::Tensor& product, const at::Scalar& beta,
                      const at::Scalar& alpha) {
  const auto type = product.scalar_type();
  if (c10::isIntegralType(type, /*includeBool=*/true)) {
    // The factors become integers, too, and the sum is of the same type.
    const auto sum = product * alpha.toLong();
    return (beta.toLong() == 0 ? sum : sum + self * beta.toLong()).to(type);
  }
  const auto scaled = alpha.equal(1) ? product : product * alpha;
  const at::Scalar factor = beta.isBoolean() ? at::Scalar(beta.toLong()) : beta;
  if (factor.equal(0)) {
    return scaled;
  }
  return factor.equal(1) ? scaled + self : at::add(scaled, self, factor);
}

at::Tensor addmm_rule(Level& level, const at::Tensor& self, const at::Tensor& left,
                      const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  const bool bias_is_a_row = self.dim() <= 1 || self.sym_size(0) == 1;
  if (has_sparse_layout(left) || has_sparse_layout(right)) {
    return add_scaled(self, at::mm(left, right), beta, alpha);
  }
  if (is_batched_at(right, level)) {
    return wrap(at::baddbmm(aligned(self, 2, level), expanded_at_front(left, level),
                            at_front(right, level), beta, alpha),
                0, level);
  }
  if (bias_is_a_row && !is_batched_at(self, level)) {
    const auto rows = merge_into(at_front(left, level), 0);
    const auto result = at::addmm(value_of(self, level), rows, value_of(right, level), beta, alpha);
    return wrap(split_from(result, 0, level, left.sym_size(0)), 0, level);
  }
  return add_scaled(self, at::mm(left, right), beta, alpha);
}

at::Tensor addmv_rule(Level& level, const at::Tensor& self, const at::Tensor& matrix,
                      const at::Tensor& vector, const at::Scalar& beta, const at::Scalar& alpha) {
  const bool batched_matrix = is_batched_at(matrix, level);
  const auto right = at_front(vector, level);
  if (!batched_matrix && right.dim() == 2) {
    return wrap(at::addmm(aligned(self, 1, level), right, value_of(matrix, level).t(), beta, alpha),
                0, level);
  }
  if (batched_matrix && right.dim() == 2) {
    const auto bias = aligned(self, 1, level).unsqueeze(-1);
    const auto column = right.unsqueeze(-1);
    return wrap(at::baddbmm(bias, at_front(matrix, level), column, beta, alpha).squeeze(-1), 0,
                level);
  }
  return add_scaled(self, at::mv(matrix, vector), beta, alpha);
}

at::Tensor baddbmm_rule(Level&, const at::Tensor& self, const at::Tensor& left,
                        const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  return add_scaled(self, at::bmm(left, right), beta, alpha);
}

at::Tensor addbmm_rule(Level&, const at::Tensor& self, const at::Tensor& left,
                       const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  const auto products = at::bmm(left, right);
  return add_scaled(self, products.sum(0, /*keepdim=*/false, products.scalar_type()), beta, alpha);
}

at::Tensor addr_rule(Level&, const at::Tensor& self, const at::Tensor& left,
                     const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  return add_scaled(self, left.unsqueeze(1) * right.unsqueeze(0), beta, alpha);
}

// In place: the functional form, copied into self.
template <auto rule>
at::Tensor& into_self_rule(Level& level, at::Tensor& self, const at::Tensor& left,
                           const at::Tensor& right, const at::Scalar& beta,
                           const at::Scalar& alpha) {
  return self.copy_(rule(level, self, left, right, beta, alpha));
}

at::Tensor trilinear_rule(Level&, const at::Tensor& first, const at::Tensor& second,
                          const at::Tensor& third, at::IntArrayRef expand1, at::IntArrayRef expand2,
                          at::IntArrayRef expand3, at::IntArrayRef summed, int64_t) {
  const auto expanded = [](at::Tensor tensor, at::IntArrayRef dims) {
    for (const auto dim : dims) {
      tensor = tensor.unsqueeze(dim);
    }
    return tensor;
  };
  return (expanded(first, expand1) * expanded(second, expand2) * expanded(third, expand3))
      .sum(summed, /*keepdim=*/false, first.scalar_type());
}

// The outer product of two vectors.
at::Tensor outer_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  TORCH_CHECK(self.dim() == 1 && other.dim() == 1, "outer: expected two vectors, but got ",
              self.dim(), "D and ", other.dim(), "D tensors");
  const auto row = at_front(other, level);
  return wrap(at::mul(at_front(self, level).unsqueeze(-1),
                      is_batched_at(other, level) ? row.unsqueeze(1) : row),
              0, level);
}

bool is_vector_or_none(const std::optional<at::Tensor>& bias) {
  return !bias || !bias->defined() || bias->dim() <= 1;
}

// An implicit composite; this is its form where the plane doesn't differentiate.
at::Tensor linear_rule(Level& level, const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias) {
  const bool has_bias = bias && bias->defined();
  const bool bias_batched = has_bias && is_batched_at(*bias, level);
  if (!is_batched_at(weight, level) && !bias_batched && !has_sparse_layout(weight)) {
    const auto plain_bias = has_bias ? std::optional(value_of(*bias, level)) : std::nullopt;
    return wrap(at::linear(at_front(input, level), value_of(weight, level), plain_bias), 0, level);
  }
  if (weight.dim() == 2 && is_vector_or_none(bias)) {
    if (has_bias && input.dim() == 1) {
      return addmv_rule(level, *bias, weight, input, 1, 1);
    }
    if (is_batched_at(weight, level) && input.dim() > 1) {
      const auto inputs = expanded_at_front(input, level);
      const auto rows = inputs.dim() == 3 ? inputs : inputs.flatten(1, -2);
      const auto weights = at_front(weight, level);
      const auto output = !has_bias ? product_of_stacks(rows, weights.mT())
                          : bias->dim() == 1
                              ? linear_of_stacks(rows, weights, expanded_at_front(*bias, level))
                              : at::baddbmm(aligned(*bias, 2, level), rows, weights.mT());
      if (inputs.dim() == 3) {
        return wrap(output, 0, level);
      }
      auto sizes = inputs.sym_sizes().vec();
      sizes.back() = output.sym_size(-1);
      return wrap(output.view_symint(sizes), 0, level);
    }
  }
  const auto product = at::matmul(input, weight.t());
  return has_bias ? product + *bias : product;
}

std::optional<at::Tensor> differentiated_linear(Level& level, const at::Tensor& input,
                                                const at::Tensor& weight,
                                                const std::optional<at::Tensor>& bias) {
  return linear_in_one_node(linear_rule, level, input, weight, bias);
}

at::Tensor matmul_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  TORCH_CHECK(self.dim() > 0 && other.dim() > 0,
              "both arguments to matmul need to be at least 1D, but they are ", self.dim(),
              "D and ", other.dim(), "D");
  if (self.dim() == 2 && other.dim() == 1 && !is_batched_at(self, level) &&
      !has_sparse_layout(self)) {
    return at::mv(self, other);  // one matrix for all samples: a product of two matrices
  }
  if (other.dim() == 1) {
    return self.dim() == 1 ? at::dot(self, other)
                           : at::matmul(self, other.unsqueeze(1)).squeeze(-1);
  }
  if (self.dim() == 1) {
    return at::matmul(self.unsqueeze(0), other).squeeze(-2);
  }
  if (self.dim() == 2 && other.dim() == 2 &&
      (has_sparse_layout(self) || has_sparse_layout(other))) {
    return at::mm(self, other);
  }
  const auto rank = std::max(self.dim(), other.dim());
  return wrap(at::matmul(aligned(self, rank, level), aligned(other, rank, level)), 0, level);
}

}  // namespace

void register_matmul_rules() {
  using namespace at::_ops;
  add<at::_ops::mm>(mm_rule);
  add<at::_ops::bmm>(bmm_rule);
  add<at::_ops::mv>(mv_rule);
  add<at::_ops::dot>(dot_rule);
  add<at::_ops::vdot>(vdot_rule);
  add<at::_ops::outer>(outer_rule);
  add<at::_ops::ger>(outer_rule);
  add<at::_ops::linear>(linear_rule, differentiated_linear);
  add<at::_ops::matmul>(matmul_rule);

  add<at::_ops::addmm>(addmm_rule);
  add<at::_ops::addmv>(addmv_rule);
  add<at::_ops::baddbmm>(baddbmm_rule);
  add<at::_ops::addbmm>(addbmm_rule);
  add<at::_ops::addr>(addr_rule);
  add<addmm_>(into_self_rule<&addmm_rule>);
  add<addmv_>(into_self_rule<&addmv_rule>);
  add<baddbmm_>(into_self_rule<&baddbmm_rule>);
  add<addbmm_>(into_self_rule<&addbmm_rule>);
  add<addr_>(into_self_rule<&addr_rule>);

  add<_trilinear>(trilinear_rule);

  add_decomposition<einsum>();
  add_decomposition<tensordot>();
}

}  // namespace functorch_ext
