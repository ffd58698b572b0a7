#pragma once

#include <ATen/core/Reduction.h>
#include <ATen/core/Tensor.h>

namespace functorch_ext {

// The losses of the samples as a loss function's `reduction` asks for them.
inline at::Tensor reduced(const at::Tensor& losses, int64_t reduction) {
  switch (reduction) {
    case at::Reduction::Mean:
      return losses.mean();
    case at::Reduction::Sum:
      return losses.sum();
    default:
      return losses;
  }
}

}  // namespace functorch_ext
