#pragma once

#include <c10/core/SymIntArrayRef.h>

#include <algorithm>

namespace functorch_ext {

// How far in memory the last element of a tensor is from its first.
inline c10::SymInt distance_to_last(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  c10::SymInt distance = 0;
  for (size_t dim = 0; dim < std::min(sizes.size(), strides.size()); ++dim) {
    distance += (sizes[dim] - 1).max(0) * strides[dim];
  }
  return distance;
}

}  // namespace functorch_ext
