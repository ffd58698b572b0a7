#include "engine/onlooking.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "engine/thread_state.h"

namespace functorch_ext {

void begin_onlooking() {
  ++detail::mutable_thread_state().onlooking_modes;
}

void end_onlooking() {
  --detail::mutable_thread_state().onlooking_modes;
}

bool has_other_modes() {
  return c10::impl::TorchDispatchModeTLS::stack_len() > thread_state().onlooking_modes;
}

}  // namespace functorch_ext
