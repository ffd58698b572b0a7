#include "autodiff/basis.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace functorch_ext {

std::vector<at::Tensor> standard_basis(const std::vector<at::Tensor>& tensors, int64_t start,
                                       int64_t count) {
  std::vector<at::Tensor> basis;
  basis.reserve(tensors.size());
  int64_t offset = 0;  // of the tensor's elements among all
  for (const auto& tensor : tensors) {
    const auto size = tensor.numel();
    const auto options = at::TensorOptions().dtype(tensor.dtype()).device(tensor.device());
    const bool whole = start == offset && count == size;
    auto part = whole ? at::eye(size, options) : at::zeros({count, size}, options);
    // Vector `start + row` has its one at element `start + row - offset` of this tensor.
    const auto diagonal = start - offset;
    if (!whole && -count < diagonal && diagonal < size) {
      part.diagonal(diagonal).fill_(1);
    }
    std::vector<int64_t> shape = {count};
    shape.insert(shape.end(), tensor.sizes().begin(), tensor.sizes().end());
    basis.push_back(part.view(shape));
    offset += size;
  }
  return basis;
}

}  // namespace functorch_ext
