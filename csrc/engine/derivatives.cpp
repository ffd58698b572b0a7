#include "engine/derivatives.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace functorch_ext {

namespace {

void (*before_differentiation)() = nullptr;

}  // namespace

Differentiating::Differentiating()
    : count_(thread_state().differentiations + 1),
      outer_included_(c10::impl::tls_is_dispatch_key_included(derivative_key)) {
  if (count_.outer() == 0 && before_differentiation) {
    before_differentiation();
  }
  c10::impl::tls_set_dispatch_key_included(derivative_key, true);
}

Differentiating::~Differentiating() {
  c10::impl::tls_set_dispatch_key_included(derivative_key, outer_included_);
}

void set_before_differentiation(void (*function)()) {
  before_differentiation = function;
}

}  // namespace functorch_ext
