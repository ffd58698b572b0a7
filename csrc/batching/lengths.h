#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

// Lengths of sequences, which operators take as numbers or as a tensor.
namespace functorch_ext {

inline at::Tensor lengths_as_tensor(at::IntArrayRef lengths, const at::Tensor& like) {
  return at::tensor(lengths, like.options().dtype(at::kLong));
}
inline at::Tensor lengths_as_tensor(const at::Tensor& lengths, const at::Tensor& like) {
  return lengths.to(like.device());
}

}  // namespace functorch_ext
