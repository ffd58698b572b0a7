#include "derivatives/second_order.h"

#include <algorithm>

namespace functorch_ext {

namespace {

// Another derivative than the tangent itself.
bool another_flows(const at::Tensor& tensor, int64_t depth) {
  if (depth_of(tensor) < depth) {
    return is_differentiated_anywhere(tensor);
  }
  const auto& tangent = tensor._fw_grad(/*level=*/0);
  return (tensor.requires_grad() && c10::GradMode::is_enabled()) ||
         (tangent.defined() && is_differentiated_anywhere(tangent)) ||
         (is_wrapper(tensor) && is_differentiated_anywhere(wrapper_of(tensor)->value()));
}

}  // namespace

bool tangents_are_differentiated(at::ArrayRef<const at::Tensor*> tensors) {
  int64_t depth = 0;
  for (const auto* tensor : tensors) {
    depth = std::max(depth, depth_of(*tensor));
  }
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor* tensor) {
                       return depth_of(*tensor) == depth && any_tangent(*tensor);
                     }) &&
         std::any_of(tensors.begin(), tensors.end(),
                     [&](const at::Tensor* tensor) { return another_flows(*tensor, depth); });
}

at::Tensor numbers_up_to_each(const at::Tensor& tensor, int64_t dim, const at::Scalar& fill) {
  const auto rows = tensor.movedim(dim, -1).unsqueeze(-2);
  const auto size = rows.sym_size(-1);
  const auto later = at::ones_symint({size, size}, tensor.options().dtype(at::kBool)).triu(1);
  return rows.masked_fill(later, fill);
}

}  // namespace functorch_ext
