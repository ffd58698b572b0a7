// Elementwise operators: every one that native_functions.yaml tags `pointwise`, in the table that
// codegen makes of it.
#include <ATen/ExpandUtils.h>

#include "batching/families.h"
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

// In place, a sample keeps its shape. Its value, with dimensions of size 1 to line up with those of
// another argument, wouldn't mind being written as a tensor of more dimensions.
template <class Signature>
struct Elementwise;

template <class Return, class... Parameters>
struct Elementwise<Return(Parameters...)> : Pointwise<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    if constexpr (std::is_same_v<Return, at::Tensor&>) {
      if (C10_UNLIKELY(first_tensor(arguments...).dim() < largest_rank(arguments...))) {
        op.ask_about_sample(level, arguments...);
      }
    }
    return Pointwise<Return(Parameters...)>::rule(op, level,
                                                  std::forward<Parameters>(arguments)...);
  }
};

}  // namespace

void register_pointwise_rules() {
#define FUNCTORCH_EXT_POINTWISE(op) add<at::_ops::op, Elementwise>();
#include "pointwise_table.inc"
#undef FUNCTORCH_EXT_POINTWISE

  // Elementwise, but not tagged so.
  using namespace at::_ops;
  add<rsub_Tensor, Elementwise>();
  add<floor_divide, Elementwise>();
  add<floor_divide_Scalar, Elementwise>();
  add<floor_divide__Tensor, Elementwise>();
  add<floor_divide__Scalar, Elementwise>();
  add<polar, Elementwise>();
  add<_add_relu_Scalar, Elementwise>();
  add<_add_relu_Tensor, Elementwise>();
  add<_add_relu__Scalar, Elementwise>();
  add<_add_relu__Tensor, Elementwise>();
  add<_dirichlet_grad, Elementwise>();
  add<_standard_gamma_grad, Elementwise>();
  add<complex, Elementwise>();
  add<hardswish, Elementwise>();
  add<hardswish_, Elementwise>();
  add<log_sigmoid_forward, Elementwise>();
  add<_prelu_kernel, OfOneShape>();  // its result is made in the shape of its first argument
  add<fake_quantize_per_tensor_affine_cachemask, Elementwise>();

  // In-place forms that lack the tag.
  add<abs_, Elementwise>();
  add<copysign__Scalar, Elementwise>();
  add<copysign__Tensor, Elementwise>();
  add<eq__Scalar, Elementwise>();
  add<eq__Tensor, Elementwise>();
  add<gcd_, Elementwise>();
  add<ge__Scalar, Elementwise>();
  add<ge__Tensor, Elementwise>();
  add<gelu_, Elementwise>();
  add<gt__Scalar, Elementwise>();
  add<gt__Tensor, Elementwise>();
  add<heaviside_, Elementwise>();
  add<lcm_, Elementwise>();
  add<le__Scalar, Elementwise>();
  add<le__Tensor, Elementwise>();
  add<lt__Scalar, Elementwise>();
  add<lt__Tensor, Elementwise>();
  add<mish_, Elementwise>();
  add<ne__Scalar, Elementwise>();
  add<ne__Tensor, Elementwise>();
  add<threshold_, Elementwise>();
  add<xlogy__Scalar_Other, Elementwise>();

  // Their derivatives.
  add<gelu_backward, OfOneShape>();
  add<elu_backward, Elementwise>();
  add<hardshrink_backward, Elementwise>();
  add<hardsigmoid_backward, Elementwise>();
  add<hardswish_backward, Elementwise>();
  add<hardtanh_backward, Elementwise>();
  add<leaky_relu_backward, Elementwise>();
  add<log_sigmoid_backward, Elementwise>();
  add<mish_backward, Elementwise>();
  add<_prelu_kernel_backward, Elementwise>();
  add<silu_backward, Elementwise>();
  add<softplus_backward, Elementwise>();
  add<softshrink_backward, Elementwise>();
}

}  // namespace functorch_ext
