// Products of matrices in numbers of few bits. They have no batched form: the samples are
// multiplied in the wider numbers that the operators add up in.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// One scale for a matrix, or one for each row of the first or column of the second. Others scale
// blocks in layouts of their own.
bool scales_rows(const at::Tensor& scale, const at::Tensor& matrix, int64_t dim) {
  return scale.sym_numel() == 1 ||
         (scale.dim() == 2 && scale.sym_size(dim) == matrix.sym_size(dim) &&
          scale.sym_size(1 - dim) == 1);
}

at::Tensor scaled(const at::Tensor& matrix, const at::Tensor& scale) {
  return matrix.to(at::kFloat) * (scale.sym_numel() == 1 ? scale.reshape({}) : scale);
}

at::Tensor scaled_product(const at::Tensor& self, const at::Tensor& other,
                          const at::Tensor& scale_self, const at::Tensor& scale_other,
                          const std::optional<at::Tensor>& bias,
                          const std::optional<at::Tensor>& scale_result,
                          std::optional<at::ScalarType> dtype) {
  auto product = at::matmul(scaled(self, scale_self), scaled(other, scale_other));
  if (bias && bias->defined()) {
    product = product + *bias;
  }
  if (scale_result && scale_result->defined()) {
    product = product / scale_result->reshape({});
  }
  return product.to(dtype.value_or(self.scalar_type()));
}

at::Tensor scaled_mm_rule(const Operator<at::_ops::_scaled_mm::schema>& op, Level&,
                          const at::Tensor& self, const at::Tensor& mat2, const at::Tensor& scale_a,
                          const at::Tensor& scale_b, const std::optional<at::Tensor>& bias,
                          const std::optional<at::Tensor>& scale_result,
                          std::optional<at::ScalarType> out_dtype, bool use_fast_accum) {
  if (!scales_rows(scale_a, self, 0) || !scales_rows(scale_b, mat2, 1)) {
    return op.loop(self, mat2, scale_a, scale_b, bias, scale_result, out_dtype, use_fast_accum);
  }
  return scaled_product(self, mat2, scale_a, scale_b, bias, scale_result, out_dtype);
}

// A family for one operator, since releases of PyTorch differ in the type of its lists.
template <class Signature>
struct ScaledMatmulV2;
template <class List>
struct ScaledMatmulV2<at::Tensor(const at::Tensor&, const at::Tensor&, List, at::IntArrayRef,
                                 at::IntArrayRef, List, at::IntArrayRef, at::IntArrayRef,
                                 const std::optional<at::Tensor>&, std::optional<at::ScalarType>,
                                 at::IntArrayRef, bool)> {
  static at::Tensor rule(const Operator<at::_ops::_scaled_mm_v2::schema>& op, Level&,
                         const at::Tensor& self, const at::Tensor& mat2, List scale_a,
                         at::IntArrayRef recipe_a, at::IntArrayRef swizzle_a, List scale_b,
                         at::IntArrayRef recipe_b, at::IntArrayRef swizzle_b,
                         const std::optional<at::Tensor>& bias,
                         std::optional<at::ScalarType> out_dtype, at::IntArrayRef contraction_dim,
                         bool use_fast_accum) {
    if (scale_a.size() != 1 || scale_b.size() != 1 || !contraction_dim.empty() ||
        !scales_rows(scale_a.front(), self, 0) || !scales_rows(scale_b.front(), mat2, 1)) {
      return op.loop(self, mat2, scale_a, recipe_a, swizzle_a, scale_b, recipe_b, swizzle_b, bias,
                     out_dtype, contraction_dim, use_fast_accum);
    }
    return scaled_product(self, mat2, scale_a.front(), scale_b.front(), bias, std::nullopt,
                          out_dtype);
  }
};

// beta * self + alpha * product, in the dtype of self. A family, since not all releases of PyTorch
// have the operators.
template <class Signature>
struct ScaledSum;
template <class Return, class Self>
struct ScaledSum<Return(Self, const at::Tensor&, const at::Tensor&, const at::ITensorListRef&,
                        at::IntArrayRef, at::IntArrayRef, const at::ITensorListRef&,
                        at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, const at::Scalar&,
                        const at::Scalar&, bool)> {
  template <class Op>
  static Return rule(const Op& op, Level&, Self self, const at::Tensor& mat1,
                     const at::Tensor& mat2, const at::ITensorListRef& scale_a,
                     at::IntArrayRef recipe_a, at::IntArrayRef swizzle_a,
                     const at::ITensorListRef& scale_b, at::IntArrayRef recipe_b,
                     at::IntArrayRef swizzle_b, at::IntArrayRef contraction_dim,
                     const at::Scalar& beta, const at::Scalar& alpha, bool use_fast_accum) {
    if (scale_a.size() != 1 || scale_b.size() != 1 || !contraction_dim.empty() ||
        !scales_rows(scale_a.front(), mat1, 0) || !scales_rows(scale_b.front(), mat2, 1)) {
      return op.loop(self, mat1, mat2, scale_a, recipe_a, swizzle_a, scale_b, recipe_b, swizzle_b,
                     contraction_dim, beta, alpha, use_fast_accum);
    }
    auto sum = alpha * scaled_product(mat1, mat2, scale_a.front(), scale_b.front(), std::nullopt,
                                      std::nullopt, at::kFloat);
    if (!beta.equal(0)) {
      sum = beta * self.to(at::kFloat) + sum;
    }
    if constexpr (std::is_reference_v<Return>) {
      return self.copy_(sum);
    } else {
      return sum.to(self.scalar_type());
    }
  }
};

at::Tensor int_mm_rule(Level&, const at::Tensor& self, const at::Tensor& mat2) {
  return at::matmul(self.to(at::kInt), mat2.to(at::kInt));
}

}  // namespace

void register_scaled_matmul_rules() {
  add<at::_ops::_scaled_mm>(scaled_mm_rule);
  add<at::_ops::_scaled_mm_v2, ScaledMatmulV2>();
  add<at::_ops::_scaled_addmm, ScaledSum>();
  add<at::_ops::_scaled_addmm_, ScaledSum>();
  add<at::_ops::_int_mm>(int_mm_rule);
}

}  // namespace functorch_ext
