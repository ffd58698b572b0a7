#pragma once

#include "batching/families.h"
#include "engine/randomness.h"

namespace functorch_ext {

// Do all samples share what an operator draws? Raises where it may not draw.
template <class Signature>
bool draws_same(const Operator<Signature>& op, const Level& level) {
  check_randomness_allowed(level, op.handle);
  return level.randomness == Randomness::Same;
}

// A tensor of the shape of one sample.
inline at::Tensor empty_sample(const at::Tensor& tensor, const Level& level) {
  return value_of(tensor, level).new_empty_symint(tensor.sym_sizes());
}

}  // namespace functorch_ext
