// Forward mode of products of matrices. The tangent of A B is a sum of two products, A' B + A B'.
// PyTorch's formula adds them in a pass over memory of its own, and a bias's in another one. Here
// the second product adds itself to the first as it is computed, and the first to the bias's:
// a pass over the result of a layer takes up to half as long as a product.
#include "derivatives/products.h"

#include "batching/operators.h"
#include "derivatives/numbers_alike.h"
#include "derivatives/register.h"
#include "derivatives/with_tangent.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

// Does a tangent flow from the tensor, one that isn't zero?
bool has_tangent(const at::Tensor& tensor) {
  const auto& tangent = tensor._fw_grad(/*level=*/0);
  return tangent.defined() && !tangent._is_zerotensor();
}

// Neither it nor its tangent is of a vmap, whose samples may differ in one term of a sum only.
bool is_plain(const at::Tensor& tensor) {
  const auto& tangent = tensor._fw_grad(/*level=*/0);
  return !is_wrapper(tensor) && (!tangent.defined() || !is_wrapper(tangent));
}

// A mode of the program's that watches operators gets those of PyTorch's formula.
bool is_watched_forward() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Python);
}

bool is_pushed_here(std::initializer_list<const at::Tensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor* tensor) { return is_plain(*tensor); }) &&
         are_numbers_alike(tensors) && !is_watched_forward();
}

struct Dual {
  Dual() = default;
  explicit Dual(const at::Tensor& tensor) : primal(tensor) {
    if (const auto& its = tensor._fw_grad(/*level=*/0); its.defined()) {
      primal = tensor._fw_primal(/*level=*/0);
      tangent = its._is_zerotensor() ? at::Tensor() : its;
    }
  }

  at::Tensor primal;
  at::Tensor tangent;  // undefined for zero
};

// beta * term + alpha * left @ right, without the term if it is undefined.
at::Tensor sum_of(const at::Tensor& term, const at::Tensor& left, const at::Tensor& right,
                  const at::Scalar& beta, const at::Scalar& alpha) {
  const bool is_stack = left.dim() == 3;
  if (term.defined()) {
    return is_stack ? at::baddbmm(term, left, right, beta, alpha)
                    : at::addmm(term, left, right, beta, alpha);
  }
  const auto product = is_stack ? at::bmm(left, right) : at::mm(left, right);
  return alpha.equal(1) ? product : product * alpha;
}

at::Tensor baddbmm(c10::DispatchKeySet keys, const at::Tensor& term, const at::Tensor& left,
                   const at::Tensor& right, const at::Scalar& beta, const at::Scalar& alpha) {
  return with_tangent(tangent_of_sum(term, left, right, beta, alpha), [&] {
    return at::_ops::baddbmm::redispatch(below_derivatives(keys), term, left, right, beta, alpha);
  });
}

at::Tensor tangent_of(const Dual& term, const Dual& left, const Dual& right, const at::Scalar& beta,
                      const at::Scalar& alpha) {
  if (!left.tangent.defined()) {
    return sum_of(term.tangent, left.primal, right.tangent, beta, alpha);
  }
  auto sum = sum_of(term.tangent, left.tangent, right.primal, beta, alpha);
  if (!right.tangent.defined()) {
    return sum;
  }
  // Nobody has saved the first product, so the second may go into its memory.
  return sum.dim() == 3 ? sum.baddbmm_(left.primal, right.tangent, /*beta=*/1, alpha)
                        : sum.addmm_(left.primal, right.tangent, /*beta=*/1, alpha);
}

}  // namespace

at::Tensor tangent_of_product(const at::Tensor& left, const at::Tensor& right) {
  if (C10_LIKELY(!has_tangent(left) && !has_tangent(right)) || !is_pushed_here({&left, &right})) {
    return {};
  }
  return tangent_of({}, Dual(left), Dual(right), 1, 1);
}

at::Tensor tangent_of_sum(const at::Tensor& term, const at::Tensor& left, const at::Tensor& right,
                          const at::Scalar& beta, const at::Scalar& alpha) {
  if (C10_LIKELY(!has_tangent(left) && !has_tangent(right)) ||
      !is_pushed_here({&left, &right, &term})) {
    return {};
  }
  return tangent_of(Dual(term), Dual(left), Dual(right), beta, alpha);
}

void register_products_derivatives() {
  add_derivative_kernel<at::_ops::baddbmm>(functorch_ext::baddbmm);
}

}  // namespace functorch_ext
