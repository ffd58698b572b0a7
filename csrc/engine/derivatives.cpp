#include "engine/derivatives.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace functorch_ext {

namespace {

// How many differentiations run on this thread, and whether the key was there before the first (an
// autograd thread inherits it).
thread_local int64_t running = 0;
thread_local bool was_included = false;

void (*before_differentiation)() = nullptr;

}  // namespace

void include_derivative_key() {
  if (running++ == 0) {
    if (before_differentiation) {
      before_differentiation();
    }
    was_included = c10::impl::tls_is_dispatch_key_included(derivative_key);
    c10::impl::tls_set_dispatch_key_included(derivative_key, true);
  }
}

void exclude_derivative_key() {
  if (--running == 0) {
    c10::impl::tls_set_dispatch_key_included(derivative_key, was_included);
  }
}

void set_before_differentiation(void (*function)()) {
  before_differentiation = function;
}

bool is_differentiating() {
  return running > 0;
}

}  // namespace functorch_ext
