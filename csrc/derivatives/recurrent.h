#pragma once

#include <optional>
#include <utility>

#include "batching/recurrent.h"

namespace functorch_ext {

// A recurrent layer under vmap, computed of plain tensors and recorded as one node of autograd's
// graph; none where its derivatives have to be those of the operators of its steps, as forward
// mode's are, or where the values aren't plain tensors.
std::optional<std::pair<at::Tensor, RecurrentState>> recurrent_layer_in_one_node(
    RecurrentKind kind, const at::Tensor& input, const RecurrentState& state,
    const RecurrentWeights& weights, bool reverse);

}  // namespace functorch_ext
