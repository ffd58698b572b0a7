#include "engine/views.h"

#include <torch/csrc/autograd/VariableTypeUtils.h>

namespace functorch_ext {

namespace {

using torch::autograd::CreationMeta;

CreationMeta creation_of(const Viewed& viewed) {
  if (!viewed.in_grad_mode) {
    return CreationMeta::NO_GRAD_MODE;
  }
  return viewed.one_of_several ? CreationMeta::MULTI_OUTPUT_NODE : CreationMeta::DEFAULT;
}

bool is_recorded_here(const at::Tensor& tensor) {
  return tensor.requires_grad() || tensor._fw_grad(/*level=*/0).defined();
}

}  // namespace

bool viewed_is_differentiated(const WrapperImpl& wrapper) {
  return is_recorded_here(wrapper.viewed().base);
}

void track_viewed(const at::Tensor& view, bool written) {
  auto* wrapper = wrapper_of(view);
  if (view.is_view() || view.is_inference() || is_recorded_here(view)) {
    wrapper->forget_viewed();
    return;
  }
  const auto& base = wrapper->viewed().base;
  // Autograd finds the view again by sizes and strides.
  const bool by_strides = view.scalar_type() == base.scalar_type() &&
                          view.is_conj() == base.is_conj() && view.is_neg() == base.is_neg();
  if (!by_strides) {
    TORCH_CHECK(!written && !viewed_is_differentiated(*wrapper),
                "functorch_ext.vmap: a view that changes the dtype (or conjugates) was taken when "
                "nothing required grad, and now it or its base is written to with a derivative. "
                "Take the view after requires_grad_(), or use the copy that x.clone() makes.");
    return;
  }
  const auto viewed = wrapper->forget_viewed();
  track_view(viewed.base, /*written=*/false);
  wrapper->set_autograd_meta(nullptr);
  torch::autograd::as_view(viewed.base, view, /*is_bw_differentiable=*/true,
                           /*is_fw_differentiable=*/true, /*view_func=*/nullptr,
                           /*rev_view_func=*/nullptr, creation_of(viewed));
  // Written to since: then its place in the graph follows from that of its base.
  torch::autograd::impl::get_view_autograd_meta(view)->set_attr_version(viewed.version);
}

}  // namespace functorch_ext
