// The tangent of what isn't differentiated is a tensor of zeros without memory (a ZeroTensor).
// PyTorch's formulas for forward mode multiply and add these like any other. For the product with
// one PyTorch asks Python for the shape; elsewhere it fills memory with zeros and computes with
// them. Either costs more than all the rest of the formula. Here, while a transform differentiates,
// what is linear in a zero is a zero of the right shape, and a sum with one is the other term.
#include <ATen/ExpandUtils.h>

#include "batching/numbers.h"
#include "batching/operators.h"
#include "batching/sparse.h"
#include "derivatives/given.h"
#include "derivatives/products.h"
#include "derivatives/register.h"
#include "derivatives/sparse.h"
#include "derivatives/with_tangent.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

// Is any argument a tensor of zeros without memory? That is a dispatch key, so one bit tells.
bool any_zeros(c10::DispatchKeySet keys) {
  return C10_UNLIKELY(keys.has(c10::DispatchKey::ZeroTensor));
}

bool any_sparse(c10::DispatchKeySet keys) {
  return C10_UNLIKELY(
      keys.has_any(c10::DispatchKeySet({c10::DispatchKey::Sparse, c10::DispatchKey::SparseCsr})));
}

bool is_zeros(const at::Tensor& tensor) {
  return tensor._is_zerotensor();
}

// Zeros of the given shape; the same for all samples where `like` is batched, and on plane 0.
at::Tensor zeros(c10::SymIntArrayRef sizes, const at::Tensor& like, at::ScalarType dtype) {
  return at::_efficientzerotensor_symint(sizes, like.options().dtype(dtype));
}

at::Tensor zeros(c10::SymIntArrayRef sizes, const at::Tensor& like) {
  return zeros(sizes, like, like.scalar_type());
}

// A number that isn't on the device of the other operand doesn't decide the result's.
const at::Tensor& on_device_of_result(const at::Tensor& self, const at::Tensor& other) {
  return self.dim() == 0 && other.dim() > 0 ? other : self;
}

at::Tensor zeros_of_both(const at::Tensor& self, const at::Tensor& other, at::ScalarType dtype) {
  return zeros(at::infer_size_symdimvector(self.sym_sizes(), other.sym_sizes()),
               on_device_of_result(self, other), dtype);
}

at::Tensor mul(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other) {
  if (any_zeros(keys)) {
    return zeros_of_both(self, other, at::result_type(self, other));
  }
  return redispatch_with_numbers<at::_ops::mul_Tensor>(keys, self, other);
}

at::Tensor div(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other) {
  if (any_zeros(keys) && !is_zeros(other)) {
    const auto dtype = at::result_type(self, other);
    if (!c10::isIntegralType(dtype, /*includeBool=*/true)) {
      return zeros_of_both(self, other, dtype);
    }
  }
  return redispatch_with_numbers<at::_ops::div_Tensor>(keys, self, other);
}

// Does nobody know the tensor and its memory but the caller, by one handle? That is how the value
// of a part of a formula is passed on, which nobody can look at or write to afterwards.
bool is_temporary(const at::Tensor& tensor) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  if (tensor.use_count() != 1 || impl->pyobj_slot()->load_pyobj()) {
    return false;
  }
  if (is_wrapper(tensor)) {
    return is_temporary(wrapper_of(tensor)->value());
  }
  return tensor.has_storage() && tensor.storage().use_count() == 1;
}

// factor * term, of the sum's shape and dtype. Its memory is its own, as that of any sum: a new
// one, or that of a term which is gone after the sum.
at::Tensor as_sum(const at::Tensor& term, const at::Tensor& zero, const at::Scalar& factor,
                  at::ScalarType dtype) {
  const auto sizes = at::infer_size_symdimvector(term.sym_sizes(), zero.sym_sizes());
  const bool broadcast = c10::SymIntArrayRef(sizes) != term.sym_sizes();
  if (!broadcast && factor.equal(1) && term.scalar_type() == dtype && is_temporary(term)) {
    return term;
  }
  auto value = broadcast ? term.expand_symint(sizes) : term;
  if (value.scalar_type() != dtype) {
    value = value.to(dtype);
  }
  if (!factor.equal(1)) {
    return factor.equal(-1) ? value.neg() : value.mul(factor);
  }
  if (broadcast) {
    return value.clone(at::MemoryFormat::Contiguous);
  }
  return value.is_same(term) ? value.clone() : value;
}

// The sum self + alpha * other where one of them is zero; none where PyTorch had better do it.
std::optional<at::Tensor> sum_with_zeros(const at::Tensor& self, const at::Tensor& other,
                                         const at::Scalar& alpha) {
  const auto dtype = at::result_type(self, other);
  if (!c10::isFloatingType(dtype) && !c10::isComplexType(dtype)) {
    return std::nullopt;
  }
  if (c10::isFloatingType(dtype) && alpha.isComplex()) {
    return std::nullopt;
  }
  const bool other_is_zeros = is_zeros(other);
  if (other_is_zeros && is_zeros(self)) {
    return zeros_of_both(self, other, dtype);
  }
  const auto& term = other_is_zeros ? self : other;
  const auto& zero = other_is_zeros ? other : self;
  if (on_device_of_result(self, other).device() != term.device()) {
    return std::nullopt;
  }
  return as_sum(term, zero, other_is_zeros ? at::Scalar(1) : alpha, dtype);
}

at::Tensor plus(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other,
                const at::Scalar& alpha) {
  if (any_zeros(keys)) {
    if (auto sum = sum_with_zeros(self, other, alpha)) {
      return std::move(*sum);
    }
  }
  return redispatch_with_numbers<at::_ops::add_Tensor>(keys, self, other, alpha);
}

at::Tensor minus(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other,
                 const at::Scalar& alpha) {
  if (any_zeros(keys)) {
    if (auto difference = sum_with_zeros(self, other, -alpha)) {
      return std::move(*difference);
    }
  }
  return redispatch_with_numbers<at::_ops::sub_Tensor>(keys, self, other, alpha);
}

at::Tensor mm(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other) {
  if (any_zeros(keys)) {
    return zeros({self.sym_size(0), other.sym_size(1)}, has_sparse_layout(self) ? other : self);
  }
  if (any_sparse(keys)) {
    if (auto product = sparse_product_with_tangent(at::_ops::mm::call, self, other)) {
      return std::move(*product);
    }
  }
  return with_tangent(tangent_of_product(self, other), [&] {
    return at::_ops::mm::redispatch(below_derivatives(keys), self, other);
  });
}

at::Tensor bmm(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other) {
  if (any_zeros(keys)) {
    return zeros({self.sym_size(0), self.sym_size(1), other.sym_size(2)}, self);
  }
  return with_tangent(tangent_of_product(self, other), [&] {
    return at::_ops::bmm::redispatch(below_derivatives(keys), self, other);
  });
}

at::Tensor mv(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& vector) {
  if (any_zeros(keys)) {
    return zeros({self.sym_size(0)}, vector);
  }
  if (any_sparse(keys)) {
    if (auto product = sparse_product_with_tangent(at::_ops::mv::call, self, vector)) {
      return std::move(*product);
    }
  }
  return at::_ops::mv::redispatch(below_derivatives(keys), self, vector);
}

// dot and vdot
template <class Op>
at::Tensor inner(c10::DispatchKeySet keys, const at::Tensor& self, const at::Tensor& other) {
  // Of these two PyTorch hides the key from the dispatcher.
  if (C10_UNLIKELY(is_zeros(self) || is_zeros(other))) {
    return zeros({}, self);
  }
  return Op::redispatch(below_derivatives(keys), self, other);
}

at::Tensor neg(c10::DispatchKeySet keys, const at::Tensor& self) {
  if (any_zeros(keys)) {
    return zeros(self.sym_sizes(), self);
  }
  return at::_ops::neg::redispatch(below_derivatives(keys), self);
}

at::Tensor sum(c10::DispatchKeySet keys, const at::Tensor& self,
               std::optional<at::ScalarType> dtype) {
  if (any_zeros(keys) && at::isFloatingType(self.scalar_type())) {
    return zeros({}, self, dtype.value_or(self.scalar_type()));
  }
  return at::_ops::sum::redispatch(below_derivatives(keys), self, dtype);
}

// Elementwise formulas that are linear in their first argument, a cotangent: of a cotangent that is
// zero they are zero.
template <class Op, class Signature>
struct LinearInFirst;
template <class Op, class... Rest>
struct LinearInFirst<Op, at::Tensor(const at::Tensor&, Rest...)> {
  static at::Tensor kernel(c10::DispatchKeySet keys, const at::Tensor& gradient, Rest... rest) {
    if (any_zeros(keys) && is_zeros(gradient)) {
      const auto at_point = first_tensor(rest...);
      const auto sizes = at::infer_size_symdimvector(gradient.sym_sizes(), at_point.sym_sizes());
      return zeros(sizes, gradient);
    }
    return Op::redispatch(below_derivatives(keys), gradient, std::forward<Rest>(rest)...);
  }
};

// The point has no part in the tangent: PyTorch makes zeros of its size, and adds them. (In a vmap
// it still does: tangents may flow on planes below.)
at::Tensor threshold_backward(c10::DispatchKeySet keys, const at::Tensor& gradient,
                              const at::Tensor& self, const at::Scalar& threshold) {
  using Op = at::_ops::threshold_backward;
  at::Tensor tangent;
  if (!any_zeros(keys) && !is_wrapper(gradient) && !is_wrapper(self) &&
      gradient._fw_grad(/*level=*/0).defined()) {
    tangent = Op::call(gradient._fw_grad(/*level=*/0), self._fw_primal(/*level=*/0), threshold);
  }
  return with_tangent(tangent, [&] {
    return LinearInFirst<Op, Op::schema>::kernel(keys, gradient, self, threshold);
  });
}

// The shape of a convolution's result.
c10::SymDimVector convolved_sizes(const at::Tensor& input, const at::Tensor& weight,
                                  c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
                                  c10::SymIntArrayRef dilation, bool transposed,
                                  c10::SymIntArrayRef output_padding, const c10::SymInt& groups) {
  c10::SymDimVector sizes = {input.sym_size(0),
                             transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  for (int64_t i = 0; i + 2 < input.dim(); ++i) {
    // One number may stand for all dimensions.
    const auto along = [&](c10::SymIntArrayRef list) { return list[list.size() == 1 ? 0 : i]; };
    const auto length = input.sym_size(i + 2);
    const auto reach = along(dilation) * (weight.sym_size(i + 2) - 1);
    sizes.push_back(transposed ? (length - 1) * along(stride) - along(padding) * 2 + reach +
                                     along(output_padding) + 1
                               : (length + along(padding) * 2 - reach - 1) / along(stride) + 1);
  }
  return sizes;
}

at::Tensor convolution(c10::DispatchKeySet keys, const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                       c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
                       c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  const bool zero_bias = any_zeros(keys) && is_given(bias) && is_zeros(*bias);
  const bool no_bias = zero_bias || !bias || !bias->defined();
  if (any_zeros(keys) && no_bias && (is_zeros(input) || is_zeros(weight))) {
    return zeros(convolved_sizes(input, weight, stride, padding, dilation, transposed,
                                 output_padding, groups),
                 input);
  }
  return at::_ops::convolution::redispatch(below_derivatives(keys), input, weight,
                                           zero_bias ? std::nullopt : bias, stride, padding,
                                           dilation, transposed, output_padding, groups);
}

// The gradients of a convolution's input, weight and bias: each is a product with the gradient of
// its result, the first two with the other one of the two.
std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    c10::DispatchKeySet keys, const at::Tensor& gradient, const at::Tensor& input,
    const at::Tensor& weight, at::OptionalSymIntArrayRef bias_sizes, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
    c10::SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
  if (any_zeros(keys)) {
    const bool all = is_zeros(gradient);
    const bool of_input = all || is_zeros(weight);
    const bool of_weight = all || is_zeros(input);
    if ((!mask[0] || of_input) && (!mask[1] || of_weight) && (!mask[2] || all)) {
      return {mask[0] ? zeros(input.sym_sizes(), gradient) : at::Tensor(),
              mask[1] ? zeros(weight.sym_sizes(), gradient) : at::Tensor(),
              mask[2] ? zeros({gradient.sym_size(1)}, gradient) : at::Tensor()};
    }
  }
  return at::_ops::convolution_backward::redispatch(
      below_derivatives(keys), gradient, input, weight, bias_sizes, stride, padding, dilation,
      transposed, output_padding, std::move(groups), mask);
}

// What scales zeros leaves them as they are, in place too. (PyTorch refuses: its formula for the
// second derivative of the mean squared error divides zeros in place.)
template <class Op, class Factor>
at::Tensor& scale(c10::DispatchKeySet keys, at::Tensor& self, Factor factor) {
  if (any_zeros(keys) && is_zeros(self)) {
    return self;
  }
  return Op::redispatch(below_derivatives(keys), self, factor);
}

// Zeros with other numbers in places. (PyTorch would expand one zero, and Inductor then writes to
// the memory that all of them share.)
template <class Op, class Signature>
struct Changed;
template <class Op, class... Rest>
struct Changed<Op, at::Tensor(const at::Tensor&, Rest...)> {
  static at::Tensor kernel(c10::DispatchKeySet keys, const at::Tensor& self, Rest... rest) {
    if (any_zeros(keys) && is_zeros(self)) {
      return Op::call(at::zeros_symint(self.sym_sizes(), self.options()),
                      std::forward<Rest>(rest)...);
    }
    return Op::redispatch(below_derivatives(keys), self, std::forward<Rest>(rest)...);
  }
};

template <template <class Op, class Signature> class Family, class... Ops>
void add_family() {
  (add_derivative_kernel<Ops>(&Family<Ops, typename Ops::schema>::kernel), ...);
}

}  // namespace

void register_zero_tangents_derivatives() {
  using namespace at::_ops;
  add_derivative_kernel<mul_Tensor>(functorch_ext::mul);
  add_derivative_kernel<div_Tensor>(functorch_ext::div);
  add_derivative_kernel<add_Tensor>(functorch_ext::plus);
  add_derivative_kernel<sub_Tensor>(functorch_ext::minus);
  add_derivative_kernel<mul__Tensor>(scale<mul__Tensor, const at::Tensor&>);
  add_derivative_kernel<mul__Scalar>(scale<mul__Scalar, const at::Scalar&>);
  add_derivative_kernel<div__Tensor>(scale<div__Tensor, const at::Tensor&>);
  add_derivative_kernel<div__Scalar>(scale<div__Scalar, const at::Scalar&>);
  add_derivative_kernel<at::_ops::mm>(functorch_ext::mm);
  add_derivative_kernel<at::_ops::bmm>(functorch_ext::bmm);
  add_derivative_kernel<at::_ops::mv>(functorch_ext::mv);
  add_derivative_kernel<at::_ops::convolution>(functorch_ext::convolution);
  add_derivative_kernel<at::_ops::convolution_backward>(functorch_ext::convolution_backward);
  add_derivative_kernel<at::_ops::dot>(inner<at::_ops::dot>);
  add_derivative_kernel<at::_ops::vdot>(inner<at::_ops::vdot>);
  add_derivative_kernel<at::_ops::neg>(functorch_ext::neg);
  add_derivative_kernel<at::_ops::sum>(functorch_ext::sum);
  add_family<LinearInFirst, elu_backward, gelu_backward, log_sigmoid_backward, sigmoid_backward,
             tanh_backward>();
  add_derivative_kernel<at::_ops::threshold_backward>(functorch_ext::threshold_backward);
  // (The kinds that reduce have a kernel already: PyTorch has no forward mode for them.)
  add_family<Changed, _unsafe_index_put, index_add, index_copy, index_fill_int_Scalar,
             at::_ops::index_put, scatter_add, scatter_src, scatter_value>();
}

}  // namespace functorch_ext
