#include "autodiff/basis.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "autodiff/subclasses.h"

namespace functorch_ext {

namespace {

// The rows from number `start` on, `count` of them, of an identity matrix of `size` columns; what
// lies outside of it is zeros.
at::Tensor rows_of_identity(const at::TensorOptions& options, const c10::SymInt& size,
                            const c10::SymInt& start, const c10::SymInt& count) {
  const bool is_whole = start == 0 && count == size;
  if (is_whole) {
    return at::eye_symint(size, options);
  }
  const auto diagonal = start.maybe_as_int();
  if (!diagonal || count.is_symbolic() || size.is_symbolic()) {
    const auto numbers = options.dtype(at::kLong);
    const auto ones_at = at::arange(start, start + count, numbers);
    return ones_at.unsqueeze(1).eq(at::arange(size, numbers)).to(options.dtype());
  }
  auto rows = at::zeros_symint({count, size}, options);
  if (-count < *diagonal && *diagonal < size) {
    rows.diagonal(*diagonal).fill_(1);
  }
  return rows;
}

}  // namespace

std::vector<at::Tensor> standard_basis(const std::vector<at::Tensor>& tensors,
                                       const c10::SymInt& start, const c10::SymInt& count) {
  if (const auto* makers = subclass_makers_for(tensors)) {
    if (auto made = makers->basis(tensors, start, count)) {
      return *std::move(made);
    }
  }
  std::vector<at::Tensor> basis;
  basis.reserve(tensors.size());
  c10::SymInt offset = 0;  // of the tensor's elements among all
  for (const auto& tensor : tensors) {
    const auto size = tensor.sym_numel();
    const auto options = at::TensorOptions().dtype(tensor.dtype()).device(tensor.device());
    auto shape = tensor.sym_sizes().vec();
    shape.insert(shape.begin(), count);
    // Vector `start + row` has its one at element `start + row - offset` of this tensor.
    const auto part = rows_of_identity(options, size, start - offset, count);
    basis.push_back(tensor.dim() == 1 ? part : part.view_symint(shape));
    offset += size;
  }
  return basis;
}

}  // namespace functorch_ext
