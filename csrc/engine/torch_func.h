#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "engine/keys.h"
#include "engine/thread_state.h"

// torch.func's transforms around ours and inside ours.
//
// They are a stack of layers for each thread. Every operator goes to the top layer first, which
// unwraps its tensors, leaves the stack for as long, and calls the operator again. So a layer that
// began inside a level of ours has to see an operator before the level does, and the level before a
// layer that began outside. A level notes how many layers there were when it began: if there are
// more now, these are inside.
namespace functorch_ext {

namespace detail {
int64_t count_layers();
}

// How many of torch.func's transforms run on this thread, at this point of an operator.
inline int64_t running_layers() {
  const bool any = c10::impl::tls_local_dispatch_key_set().included_.has_any(torch_func_modes);
  return C10_LIKELY(!any) ? 0 : detail::count_layers();
}

// Does one of torch.func's transforms run inside all of ours on this thread?
inline bool torch_func_is_innermost() {
  const auto layers = running_layers();
  return C10_UNLIKELY(layers > 0) &&
         (!thread_state().innermost || layers > thread_state().innermost->layers);
}

// A tensor of a layer that has ended, which stands for its value. PyTorch sees to that after our
// kernels do, which would take it for a tensor of a lower plane.
bool is_of_ended_layer(const at::Tensor& tensor);
at::Tensor without_ended_layers(const at::Tensor& tensor);

}  // namespace functorch_ext
