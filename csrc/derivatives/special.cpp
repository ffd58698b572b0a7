// Special functions of which PyTorch has no derivatives, and takes them for zero: Bessel functions
// by the equations that connect those of orders 0 and 1, polynomials by their recurrences.
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/below_all_levels.h"
#include "engine/derivatives.h"
#include "releases/nodes.h"

namespace functorch_ext {

namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

using Function = at::Tensor (*)(const at::Tensor&);

// Of y = f(x), element by element: by x, f'(x) times the cotangent.
class SpecialBackward final : public torch::autograd::Node {
 public:
  SpecialBackward(const at::Tensor& x, Function derivative)
      : Node(torch::autograd::collect_next_edges(x)),
        x_(x, /*is_output=*/false),
        derivative_(derivative) {}

  std::string name() const override {
    return "functorch_ext::SpecialBackward";
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    x_.reset_data();
  }

  variable_list apply(variable_list&& cotangents) override {
    const std::lock_guard lock(mutex_);
    return {cotangents[0].defined() ? cotangents[0] * derivative_(x_.unpack()) : at::Tensor()};
  }

 private:
  SavedVariable x_;
  const Function derivative_;
};

// PyTorch differentiates some of these since 2.15. Its second derivatives are wrong at 0.
at::Tensor without_derivatives(const at::Tensor& y) {
  return y.requires_grad() || any_tangent(y) ? y.tensor_data() : y;
}

// f(x), with `derivative` of operators that have derivatives.
template <class Op, Function derivative>
at::Tensor differentiated(c10::DispatchKeySet keys, const at::Tensor& x) {
  const auto y = without_derivatives(Op::redispatch(below_derivatives(keys), x));
  if (c10::GradMode::is_enabled() && x.requires_grad() && y.is_floating_point()) {
    torch::autograd::set_history(y, make_node<SpecialBackward>(x, derivative));
  }
  if (any_tangent(x)) {
    const auto [primal, tangent] = at::_unpack_dual(x, /*level=*/0);
    y._set_fw_grad(tangent * derivative(primal), /*level=*/0, /*is_inplace_op=*/false);
  }
  return y;
}

// y(x) / x, where it is close to 0 by the series of J1(x) / x or, with a sign of 1, of I1(x) / x,
// so that its derivatives hold there as well.
at::Tensor over_x(const at::Tensor& y, const at::Tensor& x, double sign) {
  const auto is_small = x.abs() < 0.1;
  const auto square = sign * x.square() / 4;
  auto series = at::ones_like(x);
  for (int64_t k = 5; k > 0; --k) {
    series = 1 + series * square / static_cast<double>(k * (k + 1));
  }
  return at::where(is_small, series / 2, y / x.masked_fill(is_small, 1));
}

at::Tensor of_j0(const at::Tensor& x) {
  return -at::special_bessel_j1(x);
}
at::Tensor of_j1(const at::Tensor& x) {
  return at::special_bessel_j0(x) - over_x(at::special_bessel_j1(x), x, -1);
}
at::Tensor of_y0(const at::Tensor& x) {
  return -at::special_bessel_y1(x);
}
at::Tensor of_y1(const at::Tensor& x) {
  return at::special_bessel_y0(x) - at::special_bessel_y1(x) / x;
}
at::Tensor of_i0(const at::Tensor& x) {
  return at::special_modified_bessel_i1(x);
}
at::Tensor of_i1(const at::Tensor& x) {
  return at::special_modified_bessel_i0(x) - over_x(at::special_modified_bessel_i1(x), x, 1);
}
at::Tensor of_k0(const at::Tensor& x) {
  return -at::special_modified_bessel_k1(x);
}
at::Tensor of_k1(const at::Tensor& x) {
  return -at::special_modified_bessel_k0(x) - at::special_modified_bessel_k1(x) / x;
}
// Scaled by exp(x).
at::Tensor of_scaled_k0(const at::Tensor& x) {
  return at::special_scaled_modified_bessel_k0(x) - at::special_scaled_modified_bessel_k1(x);
}
at::Tensor of_scaled_k1(const at::Tensor& x) {
  const auto k1 = at::special_scaled_modified_bessel_k1(x);
  return k1 - at::special_scaled_modified_bessel_k0(x) - k1 / x;
}
// sin(x) / x: the second derivative follows from the first by the differential equation
// x f'' + 2 f' + x f = 0, which is of no use at 0; so it is made of elementary functions.
at::Tensor spherical_j0(const at::Tensor& x) {
  const auto is_small = x.abs() < 0.5;
  const auto square = x.square();
  auto series = at::ones_like(x);
  for (int64_t k = 9; k > 0; --k) {
    series = 1 - series * square / static_cast<double>(2 * k * (2 * k + 1));
  }
  return at::where(is_small, series, x.sin() / x.masked_fill(is_small, 1));
}

at::Tensor airy_ai(const at::Tensor&) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false,
      "functorch_ext: torch.special.airy_ai has no derivative, for that of Airy's function "
      "isn't among PyTorch's: PyTorch would take it for zero. Detach the argument if it "
      "needs none.");
}

// p(n + 1) = (next.x x + next.one) p(n) - next.previous p(n - 1), from 1 and first.x x + first.one.
struct Step {
  double x;
  double one;
  double previous;
};
using Recurrence = Step (*)(double n);

template <int64_t first_x, int64_t first_one, int64_t next_x, int64_t next_one>
Step chebyshev(double n) {
  return n == 0 ? Step{first_x, first_one, 0} : Step{next_x, next_one, 1};
}
Step hermite_h(double n) {
  return {2, 0, 2 * n};
}
Step hermite_he(double n) {
  return {1, 0, n};
}
Step laguerre(double n) {
  return {-1 / (n + 1), (2 * n + 1) / (n + 1), n / (n + 1)};
}
Step legendre(double n) {
  return {(2 * n + 1) / (n + 1), 0, n / (n + 1)};
}

template <Recurrence step>
at::Tensor polynomial(const at::Tensor& given, const at::Tensor& degrees) {
  const auto n = degrees.detach().trunc();
  // Next to a number of the program, a tensor decides the type.
  const auto x = given.to(at::result_type(given, degrees));
  auto result = at::where(n == 0, at::ones_like(x), at::zeros_like(x));
  const auto& all = below_all_levels(n);
  const auto highest = all.numel() == 0 ? 0.0 : all.max().item<double>();
  at::Tensor previous = at::zeros_like(x);
  at::Tensor current = at::ones_like(x);
  for (double k = 0; k < highest; ++k) {
    const auto [by_x, by_one, by_previous] = step(k);
    const auto next = (by_x * x + by_one) * current - by_previous * previous;
    previous = std::exchange(current, next);
    result = at::where(n == k + 1, current, result);
  }
  return result;
}

at::Tensor as_tensor(const at::Scalar& number, const at::Tensor& other) {
  auto tensor = at::scalar_tensor(number, other.options().dtype(number.type()));
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

template <Recurrence step>
at::Tensor polynomial_of_degree(const at::Tensor& x, const at::Scalar& n) {
  return polynomial<step>(x, as_tensor(n, x));
}

// No derivative flows by the degree.
inline constexpr auto is_variable_differentiated = [](const at::Tensor& x, const auto&) {
  return any_differentiated(x);
};

template <class OfTensors, class OfDegree, Recurrence step>
void add_polynomial() {
  add_computed_when<OfTensors, is_variable_differentiated, polynomial<step>>();
  add_computed_when<OfDegree, is_variable_differentiated, polynomial_of_degree<step>>();
}

}  // namespace

void register_special_derivatives() {
  using namespace at::_ops;
  add_derivative_kernel<special_bessel_j0>(&differentiated<special_bessel_j0, of_j0>);
  add_derivative_kernel<special_bessel_j1>(&differentiated<special_bessel_j1, of_j1>);
  add_derivative_kernel<special_bessel_y0>(&differentiated<special_bessel_y0, of_y0>);
  add_derivative_kernel<special_bessel_y1>(&differentiated<special_bessel_y1, of_y1>);
  add_derivative_kernel<special_modified_bessel_i0>(
      &differentiated<special_modified_bessel_i0, of_i0>);
  add_derivative_kernel<special_modified_bessel_i1>(
      &differentiated<special_modified_bessel_i1, of_i1>);
  add_derivative_kernel<special_modified_bessel_k0>(
      &differentiated<special_modified_bessel_k0, of_k0>);
  add_derivative_kernel<special_modified_bessel_k1>(
      &differentiated<special_modified_bessel_k1, of_k1>);
  add_derivative_kernel<special_scaled_modified_bessel_k0>(
      &differentiated<special_scaled_modified_bessel_k0, of_scaled_k0>);
  add_derivative_kernel<special_scaled_modified_bessel_k1>(
      &differentiated<special_scaled_modified_bessel_k1, of_scaled_k1>);
  add_computed_when<special_spherical_bessel_j0, is_differentiated_here, spherical_j0>();
  add_computed_when<special_airy_ai, is_differentiated_here, airy_ai>();

#define ADD_POLYNOMIAL(name, ...) \
  add_polynomial<special_##name, special_##name##_n_scalar, __VA_ARGS__>()
  ADD_POLYNOMIAL(chebyshev_polynomial_t, chebyshev<1, 0, 2, 0>);
  ADD_POLYNOMIAL(chebyshev_polynomial_u, chebyshev<2, 0, 2, 0>);
  ADD_POLYNOMIAL(chebyshev_polynomial_v, chebyshev<2, -1, 2, 0>);
  ADD_POLYNOMIAL(chebyshev_polynomial_w, chebyshev<2, 1, 2, 0>);
  ADD_POLYNOMIAL(shifted_chebyshev_polynomial_t, chebyshev<2, -1, 4, -2>);
  ADD_POLYNOMIAL(shifted_chebyshev_polynomial_u, chebyshev<4, -2, 4, -2>);
  ADD_POLYNOMIAL(shifted_chebyshev_polynomial_v, chebyshev<4, -3, 4, -2>);
  ADD_POLYNOMIAL(shifted_chebyshev_polynomial_w, chebyshev<4, -1, 4, -2>);
  ADD_POLYNOMIAL(hermite_polynomial_h, hermite_h);
  ADD_POLYNOMIAL(hermite_polynomial_he, hermite_he);
  ADD_POLYNOMIAL(laguerre_polynomial_l, laguerre);
  ADD_POLYNOMIAL(legendre_polynomial_p, legendre);
#undef ADD_POLYNOMIAL
}

}  // namespace functorch_ext
