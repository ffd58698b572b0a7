#pragma once

#include <ATen/core/Tensor.h>

#include "engine/level.h"

// Products with a sparse matrix. One that all samples share can't be expanded, as a dense one is;
// the samples of the dense factor join its columns (or rows) instead.
namespace functorch_ext {

// Is it sparse, or a wrapper for what is?
bool has_sparse_layout(const at::Tensor& tensor);

// One factor is sparse, either is batched.
at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right);

}  // namespace functorch_ext
