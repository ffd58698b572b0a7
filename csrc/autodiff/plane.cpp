#include "autodiff/plane.h"

#include "engine/derivatives.h"

namespace functorch_ext {

bool is_differentiated_anywhere(const at::Tensor& tensor) {
  return tensor.requires_grad() || tensor._fw_grad(0).defined() ||
         (is_wrapper(tensor) && is_differentiated_anywhere(wrapper_of(tensor)->value()));
}

void begin_differentiation(const LevelPtr& plane, Direction direction, bool mode_below) {
  include_derivative_key();
  if (!plane) {
    return;
  }
  if (direction == Direction::Forward) {
    if (plane->forward_running++ == 0) {
      plane->forward_mode_below = mode_below;
    }
  } else if (plane->reverse_running++ == 0) {
    plane->grad_mode_below = mode_below;
  }
}

void end_differentiation(const LevelPtr& plane, Direction direction) {
  exclude_derivative_key();
  if (plane) {
    --(direction == Direction::Reverse ? plane->reverse_running : plane->forward_running);
  }
}

}  // namespace functorch_ext
