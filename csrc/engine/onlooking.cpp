#include "engine/onlooking.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

namespace functorch_ext {

namespace {

thread_local int64_t onlooking_modes = 0;

}  // namespace

void begin_onlooking() {
  ++onlooking_modes;
}

void end_onlooking() {
  --onlooking_modes;
}

bool has_other_modes() {
  return c10::impl::TorchDispatchModeTLS::stack_len() > onlooking_modes;
}

}  // namespace functorch_ext
