#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// _C.sources_of(pairs, size): for pairs (source, destination) of numbers below the size, none of
// them twice on a side, the list of each destination's source, -1 if it has none; or one number if
// all go as far, round in a circle. None if the pairs aren't of that kind, and NotImplemented if
// they don't consist of Python's own numbers.
void bind_permutations(pybind11::module_& module);

}  // namespace functorch_ext
