#pragma once

#include <ATen/core/Tensor.h>

#include "engine/level.h"

// Products with a sparse matrix that all samples share. It can't be expanded over the samples, as a
// dense one is; those of the dense factor join its columns (or rows) instead.
namespace functorch_ext {

bool is_sparse(const at::Tensor& tensor);

// One factor is sparse, the other one batched.
at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right);

void register_sparse_matmul_rules();

}  // namespace functorch_ext
