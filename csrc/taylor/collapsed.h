#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

#include "engine/level.h"

namespace functorch_ext {

// What a function of one number makes of derivatives along many directions, the samples of `level`,
// in one pass over them: the products with its slope, and, on the plane below, the sum over the
// directions of their squares. None where `first` has no directions or broadcasts with the slope.
std::optional<std::pair<at::Tensor, at::Tensor>> scaled_and_squared(const LevelPtr& level,
                                                                    const at::Tensor& first,
                                                                    const at::Tensor& slope);

}  // namespace functorch_ext
