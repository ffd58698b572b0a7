#pragma once

#include <cstdint>

namespace functorch_ext {

// The gradients of a convolution's weight for each sample have two forms: products with the patches
// of the input, whose numbers are copied for them, and one convolution with a group for each
// sample, in which a weight costs more than its arithmetic. Both do the same arithmetic. Of what
// they do beyond it there are `places` and `channels` numbers for each number of a patch, where
// each of a weight's `channels` is multiplied with patches at `places`. So up to so many places for
// a channel patches are the faster form; `python -m benchmarks.forms` measures both.
double most_places_per_channel();

inline bool patches_are_faster(int64_t places, int64_t channels) {
  return static_cast<double>(places) <= most_places_per_channel() * static_cast<double>(channels);
}

// Samples with weights of their own are groups of one convolution. Of more weights a group than
// this, kernels for groups take longer to lay them out than to compute, and the samples take turns.
constexpr int64_t most_weights_of_a_group = 400'000;

}  // namespace functorch_ext
