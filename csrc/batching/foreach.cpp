// Operators on lists of tensors, as optimizers use them.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Operators that PyTorch itself has as a composition of others, for devices without a kernel: on
// batched tensors these are the operators with rules.
template <class Signature>
struct AsComposition;
template <class Return, class... Parameters>
struct AsComposition<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level&, Parameters... arguments) {
    return op.redispatch(c10::DispatchKeySet(key_without_kernels), arguments...);
  }
};

}  // namespace

void register_foreach_rules() {
// Functional and in-place.
#define FUNCTORCH_EXT_LISTS(name, overload)                  \
  add<at::_ops::_foreach_##name##overload, AsComposition>(); \
  add<at::_ops::_foreach_##name##_##overload, AsComposition>();

#define FUNCTORCH_EXT_UNARY(name) FUNCTORCH_EXT_LISTS(name, )
  FUNCTORCH_EXT_UNARY(abs)
  FUNCTORCH_EXT_UNARY(acos)
  FUNCTORCH_EXT_UNARY(asin)
  FUNCTORCH_EXT_UNARY(atan)
  FUNCTORCH_EXT_UNARY(ceil)
  FUNCTORCH_EXT_UNARY(cos)
  FUNCTORCH_EXT_UNARY(cosh)
  FUNCTORCH_EXT_UNARY(erf)
  FUNCTORCH_EXT_UNARY(erfc)
  FUNCTORCH_EXT_UNARY(exp)
  FUNCTORCH_EXT_UNARY(expm1)
  FUNCTORCH_EXT_UNARY(floor)
  FUNCTORCH_EXT_UNARY(frac)
  FUNCTORCH_EXT_UNARY(lgamma)
  FUNCTORCH_EXT_UNARY(log)
  FUNCTORCH_EXT_UNARY(log10)
  FUNCTORCH_EXT_UNARY(log1p)
  FUNCTORCH_EXT_UNARY(log2)
  FUNCTORCH_EXT_UNARY(neg)
  FUNCTORCH_EXT_UNARY(reciprocal)
  FUNCTORCH_EXT_UNARY(round)
  FUNCTORCH_EXT_UNARY(rsqrt)
  FUNCTORCH_EXT_UNARY(sigmoid)
  FUNCTORCH_EXT_UNARY(sign)
  FUNCTORCH_EXT_UNARY(sin)
  FUNCTORCH_EXT_UNARY(sinh)
  FUNCTORCH_EXT_UNARY(sqrt)
  FUNCTORCH_EXT_UNARY(tan)
  FUNCTORCH_EXT_UNARY(tanh)
  FUNCTORCH_EXT_UNARY(trunc)
#undef FUNCTORCH_EXT_UNARY

#define FUNCTORCH_EXT_BINARY(name)       \
  FUNCTORCH_EXT_LISTS(name, _Scalar)     \
  FUNCTORCH_EXT_LISTS(name, _ScalarList) \
  FUNCTORCH_EXT_LISTS(name, _List)
  FUNCTORCH_EXT_BINARY(add)
  FUNCTORCH_EXT_BINARY(sub)
  FUNCTORCH_EXT_BINARY(mul)
  FUNCTORCH_EXT_BINARY(div)
  FUNCTORCH_EXT_BINARY(pow)
  FUNCTORCH_EXT_BINARY(lerp)
  FUNCTORCH_EXT_BINARY(maximum)
  FUNCTORCH_EXT_BINARY(minimum)
  FUNCTORCH_EXT_BINARY(clamp_max)
  FUNCTORCH_EXT_BINARY(clamp_min)
#undef FUNCTORCH_EXT_BINARY
  FUNCTORCH_EXT_LISTS(add, _Tensor)
  FUNCTORCH_EXT_LISTS(mul, _Tensor)
  FUNCTORCH_EXT_LISTS(div, _Tensor)

#define FUNCTORCH_EXT_TERNARY(name)  \
  FUNCTORCH_EXT_LISTS(name, _Scalar) \
  FUNCTORCH_EXT_LISTS(name, _ScalarList)
  FUNCTORCH_EXT_TERNARY(addcdiv)
  FUNCTORCH_EXT_TERNARY(addcmul)
#undef FUNCTORCH_EXT_TERNARY

  add<at::_ops::_foreach_pow_ScalarAndTensor, AsComposition>();
  add<at::_ops::_foreach_norm_Scalar, AsComposition>();
  add<at::_ops::_foreach_max, AsComposition>();
  add<at::_ops::_foreach_zero_, AsComposition>();
  add<at::_ops::_foreach_copy_, AsComposition>();
#undef FUNCTORCH_EXT_LISTS
  add<at::_ops::_chunk_cat, AsComposition>();
}

}  // namespace functorch_ext
