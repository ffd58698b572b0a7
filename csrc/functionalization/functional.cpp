#include "engine/boxed.h"

namespace functorch_ext {

void functional_operator(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  TORCH_CHECK(false, "functionalize: not yet");
}

}  // namespace functorch_ext
