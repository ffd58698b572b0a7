#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <c10/core/WrapDimMinimal.h>

#include "batching/values.h"

// Lengths of sequences, which operators take as numbers or as a tensor.
namespace functorch_ext {

inline at::Tensor lengths_as_tensor(at::IntArrayRef lengths, const at::Tensor& like) {
  return at::tensor(lengths, like.options().dtype(at::kLong));
}
inline at::Tensor lengths_as_tensor(const at::Tensor& lengths, const at::Tensor& like) {
  return lengths.to(like.device());
}

// PyTorch's kernels read, and in the backward pass write, wherever lengths and offsets point. They
// check lengths unless told that these are safe, of a sample alone; offsets never.
inline void check_segments(const at::Tensor& data, const std::optional<at::Tensor>& lengths,
                           const std::optional<at::Tensor>& offsets, int64_t axis, bool unsafe) {
  const auto size = data.sym_size(c10::maybe_wrap_dim(axis, data.dim()));
  if (lengths && lengths->defined() && lengths->dim() > 0) {
    const auto total = lengths->sum(-1);
    TORCH_CHECK(holds_for_all(lengths->ge(0)), "segment_reduce: lengths contains negative value!");
    TORCH_CHECK(holds_for_all(unsafe ? total.le(size) : total.eq(size)),
                "segment_reduce: Expected all rows of lengths along axis to sum to ", size,
                ", the size of data there");
  }
  if (offsets && offsets->defined()) {
    TORCH_CHECK(holds_for_all(offsets->ge(0).logical_and(offsets->le(size))),
                "segment_reduce: expected offsets from 0 to ", size,
                ", the size of data along axis, but got one out of range");
  }
}

}  // namespace functorch_ext
