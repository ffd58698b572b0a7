#pragma once

#include <ATen/core/Tensor.h>

#include "engine/wrapper.h"

// Views that autograd of their plane hasn't been told of.
//
// A vmap in which nothing is differentiated doesn't go through autograd, which is where PyTorch
// notes what is a view of what. The function may start to differentiate later, with
// x.requires_grad_() or a transform, and then write to a tensor that has views, or to a view. So a
// view holds its base, and becomes a view to autograd as well when the first operator is recorded
// that takes it.
namespace functorch_ext {

// Notes that `view` is one of `source`, or one of several parts of it.
inline void note_view(const at::Tensor& view, const at::Tensor& source, bool one_of_several) {
  if (!is_wrapper(view) || !is_wrapper(source) || view.is_same(source)) {
    return;
  }
  auto* wrapper = wrapper_of(view);
  if (&wrapper->level() == &wrapper_of(source)->level()) {
    wrapper->set_viewed(source, one_of_several);
  }
}

// Has what the tensor is a view of come to be differentiated since?
bool viewed_is_differentiated(const WrapperImpl& wrapper);
inline bool is_differentiated_by_its_base(const WrapperImpl& wrapper) {
  return C10_UNLIKELY(wrapper.viewed().base.defined()) && viewed_is_differentiated(wrapper);
}

// Tells autograd what the tensor is a view of. Autograd can't take this in late where dtypes
// differ, which is an error if the tensor is `written` to.
void track_viewed(const at::Tensor& view, bool written);
inline void track_view(const at::Tensor& view, bool written) {
  if (C10_UNLIKELY(wrapper_of(view)->viewed().base.defined())) {
    track_viewed(view, written);
  }
}

}  // namespace functorch_ext
