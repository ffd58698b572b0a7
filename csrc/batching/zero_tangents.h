#pragma once

namespace functorch_ext {

// Operators of derivative formulas on tensors of zeros without memory.
void register_zero_tangents();

}  // namespace functorch_ext
