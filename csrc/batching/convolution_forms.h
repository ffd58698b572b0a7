#pragma once

#include <cstdint>

namespace functorch_ext {

// The gradients of a convolution's weight for each sample have two forms: products with the patches
// of the input, whose numbers are copied for them, and one convolution with a group for each
// sample, in which a weight costs more than its arithmetic. Nanoseconds on one core, as
// `python -m benchmarks.forms` measures them.
struct FormCosts {
  double patch_number;  // to copy a number of a patch
  double group_weight;  // a weight of a group, beyond the arithmetic
};
FormCosts form_costs();

// The faster form, where each of a weight's `channels` is multiplied with patches at `places`. Both
// do the same arithmetic; they differ in `places` and `channels` numbers for each number of a
// patch.
inline bool patches_are_faster(const FormCosts& costs, int64_t places, int64_t channels) {
  return costs.patch_number * static_cast<double>(places) <=
         costs.group_weight * static_cast<double>(channels);
}

// Samples with weights of their own are groups of one convolution. Of more weights a group than
// this, kernels for groups take longer to lay them out than to compute, and the samples take turns.
constexpr int64_t most_weights_of_a_group = 400'000;

}  // namespace functorch_ext
