#include "engine/derivatives.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace functorch_ext {

namespace {

void (*before_first_derivative)() = nullptr;

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
  before_first_derivative = function;
}

void before_transforms() {
  if (before_first_derivative) {
    before_first_derivative();
  }
}

}  // namespace functorch_ext
