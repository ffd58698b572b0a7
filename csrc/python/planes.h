#pragma once

#include <pybind11/pybind11.h>

#include "engine/level.h"

namespace functorch_ext {

// What is said of a level to those who look inside, and doesn't keep it alive.
struct Plane {
  int64_t depth = 0;
  uintptr_t level = 0;  // tells levels of one depth apart
  const char* kind = "plain";
  int64_t size = 0;  // how many samples; -1 if that is symbolic
};

Plane plane_of(const Level& level);

// (kind, depth, size)
pybind11::tuple described(const Plane& plane);

void bind_planes(pybind11::module_& module);

}  // namespace functorch_ext
