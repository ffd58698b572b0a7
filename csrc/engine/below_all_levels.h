#pragma once

#include "engine/wrapper.h"

namespace functorch_ext {

// The plain tensor that a wrapper stands for in the end, with the samples of all its levels.
inline const at::Tensor& below_all_levels(const at::Tensor& tensor) {
  return is_wrapper(tensor) ? below_all_levels(wrapper_of(tensor)->value()) : tensor;
}

}  // namespace functorch_ext
