#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

// What a rule may know of the numbers in a batched tensor: what is true of all samples.
namespace functorch_ext {

// Is a condition true everywhere, in every sample of every level? Of tensors without numbers, as
// tracing has them, it is taken to be.
bool holds_for_all(const at::Tensor& condition);

// Rules that join samples in a dimension that is indexed ask first: an index that reaches beyond
// one sample would be another sample's. Raises an IndexError.
void check_indices(const at::Tensor& indices, const c10::SymInt& size);

// Raises where a number of any sample overflows the dtype, as PyTorch does when it reads a number.
void check_fits(const at::Tensor& numbers, at::ScalarType dtype);

// The tensor below all levels that each sample would see, if all of them see the same one.
std::optional<at::Tensor> agreed_value(const at::Tensor& tensor);

// The number of places where a mask is true, if it is the same in all samples of all levels.
std::optional<int64_t> agreed_count(const at::Tensor& mask);

// Evenly spaced numbers from `start` to `end` along a new last dimension, counted from either end
// as torch.linspace does.
at::Tensor evenly_spaced(const at::Tensor& start, const at::Tensor& end, int64_t steps);

}  // namespace functorch_ext
