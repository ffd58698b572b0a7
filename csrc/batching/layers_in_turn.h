#pragma once

#include <ATen/core/Tensor.h>

#include <array>

// Linear layers with weights of their own, as an ensemble's members have, one after the other on
// each thread. What a member's layer reads and writes then stays in the core's cache from one
// product to the next.
// A stack: input (B, N, I), weight (B, O, I), bias (B, O).
namespace functorch_ext {

// Are the inputs and outputs of such layers too large for the cache, but those of each not too
// small for calls of its own, nor too few for the threads, of which each has a cache?
bool are_better_in_turn(int64_t layers, int64_t bytes_of_layer);

// Plain tensors of one dtype on a CPU; the bias may be undefined.
at::Tensor layers_in_turn(const at::Tensor& input, const at::Tensor& weight,
                          const at::Tensor& bias);

// The gradients that are wanted, the others undefined: by input, weight and bias, for a cotangent
// (B, ..., O) and input (B, ..., I), which become matrices one by one. What isn't needed may be
// undefined.
struct LayerGradients {
  at::Tensor input, weight, bias;
};
LayerGradients layer_gradients_in_turn(const at::Tensor& cotangent, const at::Tensor& input,
                                       const at::Tensor& weight, std::array<bool, 3> wanted);

}  // namespace functorch_ext
