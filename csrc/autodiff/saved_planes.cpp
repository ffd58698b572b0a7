#include "autodiff/saved_planes.h"

#include <torch/csrc/autograd/variable.h>

#include "engine/wrapper.h"

namespace functorch_ext {

using torch::autograd::ForwardGrad;

SavedPlanes::SavedPlanes(const at::Tensor& tensor) {
  at::Tensor current = tensor;
  while (is_wrapper(current)) {
    auto& plane = planes_.emplace_back();
    plane.level = wrapper_of(current)->level_ptr();
    current = at::Tensor(wrapper_of(current)->value());
    if (current.requires_grad()) {
      plane.edge = torch::autograd::impl::gradient_edge(current);
    }
    if (const auto& tangent = current._fw_grad(/*level=*/0); tangent.defined()) {
      plane.tangent = std::make_shared<ForwardGrad>();
      plane.tangent->set_value(tangent, /*level=*/0);
    }
  }
}

at::Tensor SavedPlanes::restore(const at::Tensor& unpacked) const {
  std::vector<int64_t> bdims;
  at::Tensor value = unpacked;
  for (const auto& plane : planes_) {
    if (!is_wrapper(value) || wrapper_of(value)->level().depth != plane.level->depth ||
        !wrapper_of(value)->level().is_of_kind_of(*plane.level)) {
      return unpacked;
    }
    bdims.push_back(wrapper_of(value)->bdim());
    value = at::Tensor(wrapper_of(value)->value());
  }
  value = value.tensor_data();
  for (auto i = planes_.size(); i-- > 0;) {
    const auto& plane = planes_[i];
    if (plane.edge.is_valid()) {
      torch::autograd::impl::set_gradient_edge(value, plane.edge);
    }
    if (plane.tangent && !plane.tangent->empty()) {
      value._set_fw_grad(plane.tangent->value(/*level=*/0), /*level=*/0, /*is_inplace_op=*/false);
    }
    value = wrap(value, bdims[i], *plane.level);
  }
  return value;
}

}  // namespace functorch_ext
