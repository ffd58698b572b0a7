// Pointwise operators: every one that native_functions.yaml tags `pointwise`, in the table that
// codegen makes of it.
#include <ATen/ExpandUtils.h>
#include <ATen/ops/pow.h>

#include "batching/families.h"
#include "batching/large_memory.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "pointwise_includes.inc"

namespace functorch_ext {

namespace {

// oneDNN's kernels neither broadcast nor look at shapes: all arguments get the same one.
template <class Signature>
struct OfOneShape;
template <class... Parameters>
struct OfOneShape<at::Tensor(Parameters...)> {
  static at::Tensor rule(const Operator<at::Tensor(Parameters...)>& op, Level& level,
                         Parameters... arguments) {
    const auto rank = largest_rank(arguments...);
    const auto promotion = LogicalPromotion::of(level, arguments...);
    std::vector<c10::SymInt> sizes(rank + 1, 1);
    sizes[0] = level.batch_size;
    (for_each_tensor(arguments,
                     [&](const at::Tensor& tensor) {
                       sizes =
                           at::infer_size_symint(sizes, aligned(tensor, rank, level).sym_sizes());
                     }),
     ...);
    return wrap(
        call_rewritten<at::Tensor, Parameters...>(
            op.call,
            [&](const at::Tensor& tensor) {
              return promotion.apply(aligned(tensor, rank, level), tensor).expand_symint(sizes);
            },
            std::forward<Parameters>(arguments)...),
        0, level);
  }
};

// Squares for the norms of all samples' gradients, large tensors that are freed at once: as large
// as the next ones.
template <class Signature>
struct Power : Pointwise<Signature> {
  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& self,
                         const at::Scalar& exponent) {
    const auto& value = value_of(self, level);
    if (is_readable(value) && at::isFloatingType(value.scalar_type()) && !exponent.isComplex() &&
        value.numel() > (1 << 20) && value.is_contiguous()) {
      auto result = empty_in_large_pages(value.sizes(), value.options());
      return wrap(at::pow_out(result, value, exponent), bdim_of(self, level), level);
    }
    return Pointwise<Signature>::rule(op, level, self, exponent);
  }
};

}  // namespace

void register_pointwise_rules() {
#define FUNCTORCH_EXT_POINTWISE(op) add<at::_ops::op, Pointwise>();
#include "pointwise_table.inc"
#undef FUNCTORCH_EXT_POINTWISE

  // Pointwise, but not tagged so.
  using namespace at::_ops;
  add<rsub_Tensor, Pointwise>();
  add<floor_divide, Pointwise>();
  add<floor_divide_Scalar, Pointwise>();
  add<floor_divide__Tensor, Pointwise>();
  add<floor_divide__Scalar, Pointwise>();
  add<polar, Pointwise>();
  add<_add_relu_Scalar, Pointwise>();
  add<_add_relu_Tensor, Pointwise>();
  add<_add_relu__Scalar, Pointwise>();
  add<_add_relu__Tensor, Pointwise>();
  add<_dirichlet_grad, Pointwise>();
  add<_standard_gamma_grad, Pointwise>();
  add<complex, Pointwise>();
  add<hardswish, Pointwise>();
  add<hardswish_, Pointwise>();
  add<_prelu_kernel, OfOneShape>();  // its result is made in the shape of its first argument
  add<fake_quantize_per_tensor_affine_cachemask, Pointwise>();
  add<pow_Tensor_Scalar, Power>();

  // In-place forms that lack the tag.
  add<abs_, Pointwise>();
  add<copysign__Scalar, Pointwise>();
  add<copysign__Tensor, Pointwise>();
  add<eq__Scalar, Pointwise>();
  add<eq__Tensor, Pointwise>();
  add<gcd_, Pointwise>();
  add<ge__Scalar, Pointwise>();
  add<ge__Tensor, Pointwise>();
  add<gelu_, Pointwise>();
  add<gt__Scalar, Pointwise>();
  add<gt__Tensor, Pointwise>();
  add<heaviside_, Pointwise>();
  add<lcm_, Pointwise>();
  add<le__Scalar, Pointwise>();
  add<le__Tensor, Pointwise>();
  add<lt__Scalar, Pointwise>();
  add<lt__Tensor, Pointwise>();
  add<mish_, Pointwise>();
  add<ne__Scalar, Pointwise>();
  add<ne__Tensor, Pointwise>();
  add<threshold_, Pointwise>();
  add<xlogy__Scalar_Other, Pointwise>();

  // Their derivatives.
  add<gelu_backward, OfOneShape>();
  add<elu_backward, Pointwise>();
  add<hardshrink_backward, Pointwise>();
  add<hardsigmoid_backward, Pointwise>();
  add<hardswish_backward, Pointwise>();
  add<hardtanh_backward, Pointwise>();
  add<leaky_relu_backward, Pointwise>();
  add<mish_backward, Pointwise>();
  add<_prelu_kernel_backward, Pointwise>();
  add<silu_backward, Pointwise>();
  add<softplus_backward, Pointwise>();
  add<softshrink_backward, Pointwise>();
}

}  // namespace functorch_ext
