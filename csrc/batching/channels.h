#pragma once

#include <optional>

#include "batching/physical.h"

// Samples joined with the N or the C dimension of a value, and parted again. The rules for
// convolution, pooling and normalisation turn on which of the two costs no copy.
namespace functorch_ext {

// Optional arguments, such as weights: what is absent isn't batched.
using OptionalTensor = std::optional<at::Tensor>;

inline bool is_batched(const OptionalTensor& tensor, const Level& level) {
  return tensor && tensor->defined() && is_batched_at(*tensor, level);
}
inline OptionalTensor optional_value(const OptionalTensor& tensor, const Level& level) {
  return tensor && tensor->defined() ? value_of(*tensor, level) : OptionalTensor();
}

// A value with the samples in front, or, if it isn't batched, one that all samples share.
inline at::Tensor wrap_if(const at::Tensor& value, bool batched, const Level& level) {
  return value.defined() ? wrap(value, batched ? 0 : no_bdim, level) : value;
}

// The value with dimension `dim` as two, the first of size `outer` (not 0).
at::Tensor unflatten(const at::Tensor& value, int64_t dim, const c10::SymInt& outer);

// The samples of a batched tensor joined with its N, in the order in which they lie, and results
// with N in front parted the same way.
class JoinedWithN {
 public:
  JoinedWithN(const at::Tensor& tensor, const Level& level);
  const at::Tensor& value() const {
    return value_;
  }
  at::Tensor part(const at::Tensor& result) const;

 private:
  const Level& level_;
  const bool n_first_;
  c10::SymInt n_;
  at::Tensor value_;
};

// A value with the samples in front, these joined with the channels of dimension `dim` of one
// sample. With groups, the channels of one group stay together: (group, sample, channel in group).
at::Tensor join_channels(const at::Tensor& value, int64_t dim, const c10::SymInt& groups = 1);
// The tensor of the level that a value with joined channels stands for.
at::Tensor part_channels(const at::Tensor& value, int64_t dim, const Level& level,
                         const c10::SymInt& groups = 1);

// One number a channel, (B?, C), against values (B?, ..., C, ...) of logical rank `rank` with the
// channels in logical dimension 1: the dimensions between are added.
at::Tensor per_channel(const at::Tensor& value, int64_t rank);
// The reverse: values (B?, N, C, ...) of logical rank `rank` summed for each channel.
at::Tensor sum_per_channel(const at::Tensor& value, int64_t rank);

// A result for no samples at all: `sizes` are those of one sample.
at::Tensor of_no_samples(const at::Tensor& like, c10::SymIntArrayRef sizes, const Level& level);
// Is the level's batch size known to be 0?
inline bool has_no_samples(const Level& level) {
  return level.batch_size.maybe_as_int() == 0;
}

}  // namespace functorch_ext
