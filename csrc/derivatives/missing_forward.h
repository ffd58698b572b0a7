#pragma once

namespace functorch_ext {

// Gives kernels to the operators that PyTorch differentiates in reverse mode alone; call it when
// all other kernels, and PyTorch's decompositions, are registered. Operators that programs define
// later get theirs when a transform next begins.
void register_missing_forward();

}  // namespace functorch_ext
