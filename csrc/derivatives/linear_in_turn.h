#pragma once

#include <array>
#include <optional>

#include "batching/layers_in_turn.h"

namespace functorch_ext {

// Are these layers with weights of their own, of one sample or stacks of them, which are better
// computed one after the other (batching/layers_in_turn.h)?
bool are_large_layers(const at::Tensor& input, const at::Tensor& weight);

// The gradients of such layers in a backward pass: of samples of a level, or of stacks on plane 0.
// None where somebody follows the backward pass, or where the values aren't plain tensors.
std::optional<LayerGradients> linear_gradients_in_turn(const at::Tensor& cotangent,
                                                       const at::Tensor& input,
                                                       const at::Tensor& weight,
                                                       std::array<bool, 3> wanted);

}  // namespace functorch_ext
