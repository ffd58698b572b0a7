#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace functorch_ext {

inline bool is_given(const std::optional<at::Tensor>& tensor) {
  return tensor && tensor->defined();
}

}  // namespace functorch_ext
