// Elementwise operators: every one that native_functions.yaml tags `pointwise`, in the table that
// codegen makes of it.
#include "batching/families.h"

#include "batching/operators.h"
#include "batching/rules.h"
#include "pointwise_includes.inc"

namespace functorch_ext {

void register_pointwise_rules() {
#define FUNCTORCH_EXT_POINTWISE(op) add<at::_ops::op, Pointwise>();
#include "pointwise_table.inc"
#undef FUNCTORCH_EXT_POINTWISE

  // Elementwise, but not tagged so.
  using namespace at::_ops;
  add<rsub_Tensor, Pointwise>();
  add<floor_divide, Pointwise>();
  add<floor_divide_Scalar, Pointwise>();
  add<floor_divide__Tensor, Pointwise>();
  add<floor_divide__Scalar, Pointwise>();
  add<polar, Pointwise>();
  add<complex, Pointwise>();
  add<hardswish, Pointwise>();
  add<hardswish_, Pointwise>();
  add<log_sigmoid_forward, Pointwise>();
  add<_prelu_kernel, Pointwise>();
  add<fake_quantize_per_tensor_affine_cachemask, Pointwise>();

  // Their derivatives.
  add<elu_backward, Pointwise>();
  add<hardshrink_backward, Pointwise>();
  add<hardsigmoid_backward, Pointwise>();
  add<hardswish_backward, Pointwise>();
  add<hardtanh_backward, Pointwise>();
  add<leaky_relu_backward, Pointwise>();
  add<log_sigmoid_backward, Pointwise>();
  add<mish_backward, Pointwise>();
  add<_prelu_kernel_backward, Pointwise>();
  add<silu_backward, Pointwise>();
  add<softplus_backward, Pointwise>();
  add<softshrink_backward, Pointwise>();
}

}  // namespace functorch_ext
