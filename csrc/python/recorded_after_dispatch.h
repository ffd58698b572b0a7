#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>
#include <pybind11/pybind11.h>

namespace functorch_ext {

// Does make_fx(pre_dispatch=True), or torch.export, record operators on this thread before they get
// to the kernels of wrappers and to autograd?
inline bool records_before_dispatch() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::PreDispatch);
}

// body(). What is recorded of a transform is what its kernels and its backward passes compute, so
// while the body runs, operators are recorded where make_fx does by default: after autograd.
template <class Body>
pybind11::object recorded_after_dispatch(Body&& body) {
  if (C10_LIKELY(!records_before_dispatch())) {
    return body();
  }
  return pybind11::module_::import("functorch_ext._patches.recording")
      .attr("record_after_dispatch")(pybind11::cpp_function([&body] { return body(); }));
}

// torch.jit.trace knows a tensor by its identity. Those that derivatives are made of it hasn't seen
// before, and takes for constants.
inline void refuse_torchscript() {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::Tracer),
      "functorch_ext: torch.jit.trace takes vmap, grad inside vmap, and functionalize, but no "
      "other "
      "derivatives: jvp, vjp, jacrev, jacfwd, hessian, linearize, and grad outside of vmap. Use "
      "torch.export.export or functorch_ext.jit.");
}

}  // namespace functorch_ext
