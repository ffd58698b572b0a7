#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/wrapper.h"

// From a tensor of a level to the physical tensor that a rule computes with. "Rank" is the number
// of logical dimensions, those of one sample, as the tensor itself reports them.
namespace functorch_ext {

// The value with the samples along dimension 0; a tensor that isn't batched stays as it is.
at::Tensor at_front(const at::Tensor& tensor, const Level& level);

// The same, but always with a batch dimension: a tensor that isn't batched is expanded, without
// a copy.
at::Tensor expanded_at_front(const at::Tensor& tensor, const Level& level);
// The same, for an operator that returns it with other numbers in places. While somebody traces, it
// gets memory of its own: Inductor computes such an operator in place, and writes to what samples
// share (pytorch#183986).
at::Tensor expanded_to_change(const at::Tensor& tensor, const Level& level);

// Does autograd follow the value, on its plane or on one below? Then what a rule computes by
// numbers that the operator saved, but that autograd takes for constants, would have another
// derivative.
bool is_followed(const at::Tensor& value);

// Is the value a tensor of plane 0 that no derivative flows through?
bool is_plain(const at::Tensor& value);
// And do its numbers, at least one, lie in the memory of a CPU, for a rule to read and to compute
// with? Not while somebody traces operators, who wouldn't see it.
bool is_readable(const at::Tensor& value);

// At the front, with dimensions of size 1 behind the batch dimension up to `rank` logical ones, so
// that broadcasting lines up from the right. A tensor that isn't batched stays as it is.
at::Tensor aligned(const at::Tensor& tensor, int64_t rank, const Level& level);

// A logical dimension as a physical one, with the samples at the front.
int64_t physical_dim(int64_t dim, int64_t rank);
std::vector<int64_t> physical_dims(at::IntArrayRef dims, int64_t rank);

// Logical sizes with the batch size in front.
std::vector<c10::SymInt> physical_sizes(c10::SymIntArrayRef sizes, const Level& level);

// The batch dimension merged into dimension `dim` of a value that has it at the front, and back.
at::Tensor merge_into(const at::Tensor& value, int64_t dim);
// (`size` is what the dimension had before; it can't be inferred where there are no samples.)
at::Tensor split_from(const at::Tensor& value, int64_t dim, const Level& level, c10::SymInt size);

}  // namespace functorch_ext
