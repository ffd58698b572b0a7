#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace functorch_ext {

// A product of two factors, one of them sparse and constant and the other with a tangent: PyTorch's
// formula asks for zeros of the sparse layout, which it hasn't. None for other factors.
using Product = at::Tensor (*)(const at::Tensor& left, const at::Tensor& right);
std::optional<at::Tensor> sparse_product_with_tangent(Product product, const at::Tensor& left,
                                                      const at::Tensor& right);

}  // namespace functorch_ext
