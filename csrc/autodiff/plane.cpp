#include "autodiff/plane.h"

namespace functorch_ext {

void begin_differentiation(const LevelPtr& plane, Direction direction, bool grad_mode_below) {
  if (!plane) {
    auto& state = thread_state();
    ++(direction == Direction::Reverse ? state.reverse_running : state.forward_running);
  } else if (direction == Direction::Forward) {
    ++plane->forward_running;
  } else if (plane->reverse_running++ == 0) {
    plane->grad_mode_below = grad_mode_below;
  }
}

void end_differentiation(const LevelPtr& plane, Direction direction) {
  if (!plane) {
    auto& state = thread_state();
    --(direction == Direction::Reverse ? state.reverse_running : state.forward_running);
  } else {
    --(direction == Direction::Reverse ? plane->reverse_running : plane->forward_running);
  }
}

}  // namespace functorch_ext
