#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace functorch_ext {

// The exception that is being handled, as one of Python's with a note on the transforms that run.
[[noreturn]] void raise_with_note();

// function(), inside a transform: what it raises says which transforms it was in. Costs nothing
// unless it raises.
template <class Function>
auto noting_errors(Function&& function) {
  try {
    return function();
  } catch (const std::exception&) {
    raise_with_note();
  }
}

}  // namespace functorch_ext
