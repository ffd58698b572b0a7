#pragma once

#include <torch/csrc/Exceptions.h>

namespace functorch_ext {

// function(), whose warnings are Python's, for the program to filter, as they are of PyTorch's own
// calls. Without, they are lines on stderr.
template <class Function>
auto warned_by_python(Function&& function) {
  torch::PyWarningHandler handler;
  try {
    return function();
  } catch (...) {
    handler.set_in_exception();
    throw;
  }
}

}  // namespace functorch_ext
