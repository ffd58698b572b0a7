// Elementwise operators: every one that native_functions.yaml tags `pointwise`, in the table that
// codegen makes of it.
#include "batching/families.h"

#include "batching/operators.h"
#include "batching/rules.h"
#include "pointwise_includes.inc"

namespace functorch_ext {

namespace {

// The value is a number per sample, which masked_fill itself takes one of only.
at::Tensor masked_fill(Level&, const at::Tensor& self, const at::Tensor& mask,
                       const at::Tensor& value) {
  TORCH_CHECK(value.dim() == 0,
              "masked_fill only supports a 0-dimensional value tensor, but got tensor with ",
              value.dim(), " dimension(s).");
  return at::where(mask, value.to(self.scalar_type()), self);
}

at::Tensor& masked_fill_(Level& level, at::Tensor& self, const at::Tensor& mask,
                         const at::Tensor& value) {
  return self.copy_(masked_fill(level, self, mask, value));
}

}  // namespace

void register_pointwise_rules() {
#define FUNCTORCH_EXT_POINTWISE(op) add<at::_ops::op, Pointwise>();
#include "pointwise_table.inc"
#undef FUNCTORCH_EXT_POINTWISE

  // Elementwise, but not tagged so.
  using namespace at::_ops;
  add<rsub_Tensor, Pointwise>();
  add<rsub_Scalar, Pointwise>();
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
  add<at::_ops::masked_fill_Tensor>(functorch_ext::masked_fill);
  add<at::_ops::masked_fill__Tensor>(functorch_ext::masked_fill_);

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
  add<rrelu_with_noise_backward, Pointwise>();
  add<silu_backward, Pointwise>();
  add<softplus_backward, Pointwise>();
  add<softshrink_backward, Pointwise>();
  add<glu, AlongDims>({"dim"});
  add<glu_backward, AlongDims>({"dim"});
  add<glu_jvp, AlongDims>({"dim"});
  add<glu_backward_jvp, AlongDims>({"dim"});
}

}  // namespace functorch_ext
