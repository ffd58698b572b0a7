#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "engine/level.h"

namespace functorch_ext {

// Batch normalization in training writes to the running statistics, so these must differ between
// samples as the input does; else it raises, before anything is written.
void check_running_statistics(const std::optional<at::Tensor>& running_mean,
                              const std::optional<at::Tensor>& running_var, const Level& level);

}  // namespace functorch_ext
