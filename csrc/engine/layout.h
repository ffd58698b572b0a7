#pragma once

#include <ATen/core/Tensor.h>

namespace functorch_ext {

// Does a tensor hold its elements in strides? Only such tensors hold samples and have tangents.
inline bool is_strided(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_nested();
}

}  // namespace functorch_ext
