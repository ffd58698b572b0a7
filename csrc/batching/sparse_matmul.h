#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "engine/level.h"

// Products with a sparse matrix. One that all samples share can't be expanded, as a dense one is;
// the samples of the dense factor join its columns (or rows) instead.
namespace functorch_ext {

// Is it sparse, or a wrapper for what is?
bool is_sparse(const at::Tensor& tensor);

// One factor is sparse, either is batched.
at::Tensor sparse_mm(Level& level, const at::Tensor& left, const at::Tensor& right);

// A product of two factors, one of them sparse and constant and the other with a tangent: PyTorch's
// formula asks for zeros of the sparse layout, which it hasn't. None for other factors.
using Product = at::Tensor (*)(const at::Tensor& left, const at::Tensor& right);
std::optional<at::Tensor> sparse_product_with_tangent(Product product, const at::Tensor& left,
                                                      const at::Tensor& right);

void register_sparse_matmul_rules();

}  // namespace functorch_ext
