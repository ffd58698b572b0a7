#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Ends a frame with the scope, although Python may keep the frame itself.
template <class Frame>
class FrameEnd {
 public:
  explicit FrameEnd(Frame& frame) : frame_(frame) {}
  ~FrameEnd() {
    frame_.exit();
  }
  FrameEnd(const FrameEnd&) = delete;
  FrameEnd& operator=(const FrameEnd&) = delete;

 private:
  Frame& frame_;
};

// The forward-mode derivatives that PyTorch has as decompositions only, such as that of
// log_softmax's backward pass, are known from the first call on: they take longer to import than
// all of this package.
void register_forward_decompositions();

// Binds what starts and ends transforms: functions that call a function of Python's in between.
void bind_frames(pybind11::module_& module);

}  // namespace functorch_ext
