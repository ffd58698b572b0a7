#include "engine/derivatives.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace functorch_ext {

namespace {

void (*called_before)() = nullptr;

}  // namespace

Differentiating::Differentiating()
    : count_(thread_state().differentiations + 1),
      outer_included_(c10::impl::tls_is_dispatch_key_included(derivative_key)) {
  if (count_.outer() == 0) {
    before_transforms();
  }
  c10::impl::tls_set_dispatch_key_included(derivative_key, true);
}

Differentiating::~Differentiating() {
  c10::impl::tls_set_dispatch_key_included(derivative_key, outer_included_);
}

void set_before_transforms(void (*function)()) {
  called_before = function;
}

void before_transforms() {
  if (called_before) {
    called_before();
  }
}

}  // namespace functorch_ext
