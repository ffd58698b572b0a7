// Operators on several tensors: those that make one of them, and those on lists of them.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

std::vector<at::Tensor> all_at_front(at::TensorList tensors, const Level& level) {
  std::vector<at::Tensor> values;
  values.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    values.push_back(expanded_at_front(tensor, level));
  }
  return values;
}

// Tensors of shape (0,) go with tensors of any rank and add nothing.
at::Tensor cat_rule(Level& level, const at::ITensorListRef& tensors, int64_t dim) {
  std::vector<at::Tensor> joined;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.dim() != 1 || tensor.sym_size(0) != 0) {
      joined.push_back(tensor);
    }
  }
  if (joined.empty()) {
    joined.assign(tensors.begin(), tensors.end());
  }
  for (const auto& tensor : joined) {
    TORCH_CHECK(tensor.dim() > 0, "cat: a tensor without dimensions cannot be concatenated");
  }
  const auto physical = physical_dim(dim, joined[0].dim());
  return wrap(at::cat(all_at_front(joined, level), physical), 0, level);
}

template <class Op>
at::Tensor stack_rule(Level& level, at::TensorList tensors, int64_t dim) {
  const auto physical = physical_dim(dim, tensors[0].dim() + 1);
  return wrap(Op::call(all_at_front(tensors, level), physical), 0, level);
}

at::Tensor block_diag_rule(Level& level, at::TensorList tensors) {
  std::vector<at::Tensor> blocks;
  c10::SymInt columns = 0;
  for (const auto& tensor : tensors) {
    TORCH_CHECK(tensor.dim() <= 2, "block_diag: a tensor has more than 2 dimensions");
    auto block = expanded_at_front(tensor, level);
    while (block.dim() < 3) {
      block = block.unsqueeze(1);
    }
    columns += block.sym_size(2);
    blocks.push_back(std::move(block));
  }
  c10::SymInt before = 0;
  for (auto& block : blocks) {
    const auto width = block.sym_size(2);
    block = at::constant_pad_nd_symint(block, {before, columns - before - width});
    before += width;
  }
  return wrap(at::cat(blocks, 1), 0, level);
}

// Operators that PyTorch itself has as a composition of others, for devices without a kernel: on
// batched tensors these are the operators with rules.
template <class Signature>
struct Composed;
template <class Return, class... Parameters>
struct Composed<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level&, Parameters... arguments) {
    return op.redispatch(c10::DispatchKeySet(key_without_kernels), arguments...);
  }
};

// Functional and in-place.
#define FUNCTORCH_EXT_LISTS(name, overload)             \
  add<at::_ops::_foreach_##name##overload, Composed>(); \
  add<at::_ops::_foreach_##name##_##overload, Composed>();

void register_lists() {
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

  add<at::_ops::_foreach_pow_ScalarAndTensor, Composed>();
  add<at::_ops::_foreach_norm_Scalar, Composed>();
  add<at::_ops::_foreach_max, Composed>();
  add<at::_ops::_foreach_zero_, Composed>();
  add<at::_ops::_foreach_copy_, Composed>();
}
#undef FUNCTORCH_EXT_LISTS

}  // namespace

void register_joining_rules() {
  add<at::_ops::cat>(cat_rule);
  add<at::_ops::stack>(stack_rule<at::_ops::stack>);
  add<at::_ops::_stack>(stack_rule<at::_ops::_stack>);
  add<at::_ops::block_diag>(block_diag_rule);
  add<at::_ops::_chunk_cat, Composed>();
  register_lists();
}

}  // namespace functorch_ext
