#pragma once

#include "autodiff/plane.h"
#include "batching/operators.h"
#include "engine/derivatives.h"

// Tangents that are differentiated again.
//
// PyTorch's forward-mode formulas are meant to be used once: some take parts of the result as
// constants (the factors of a solved system, the statistics of a normalization), others write in
// place to what reverse mode has saved. Under jvp(jvp) and grad(jvp) the ones give wrong answers
// and the others raise. The operators concerned get kernels that, then and only then, compute
// the same of operators whose formulas hold.
namespace functorch_ext {

// Tells, of an operator's tensors, whether one has a tangent on the operator's plane and another
// derivative flows through one: reverse mode on the same plane, or either mode on a lower plane.
bool tangents_are_differentiated(at::ArrayRef<const at::Tensor*> tensors);

inline constexpr auto has_tangents_to_differentiate = [](const auto&... arguments) {
  if (C10_LIKELY(!any_tangent(arguments...))) {
    return false;
  }
  c10::SmallVector<const at::Tensor*, 8> tensors;
  (for_each_tensor(arguments, [&](const at::Tensor& tensor) { tensors.push_back(&tensor); }), ...);
  return tangents_are_differentiated(tensors);
};

// `same` is a function of the operator's arguments that computes the same.
template <class Op, auto same>
void add_second_order() {
  add_computed_when<Op, has_tangents_to_differentiate, same>();
}

// For each number along the dimension, the numbers up to it in a new last dimension, and `fill` in
// place of those behind it.
at::Tensor numbers_up_to_each(const at::Tensor& tensor, int64_t dim, const at::Scalar& fill);

}  // namespace functorch_ext
