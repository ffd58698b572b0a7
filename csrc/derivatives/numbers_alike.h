#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <initializer_list>

namespace functorch_ext {

inline bool is_cast_automatically(c10::DeviceType device) {
  return at::autocast::is_autocast_available(device) && at::autocast::is_autocast_enabled(device);
}

// Are these real numbers of one type on one device? PyTorch tells what is wrong with others, and
// knows what to do with tensors of its other kinds.
inline bool are_numbers_alike(std::initializer_list<const at::Tensor*> tensors) {
  const auto& first = **tensors.begin();
  constexpr auto others =
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::NestedTensor});
  return c10::isFloatingType(first.scalar_type()) &&
         !is_cast_automatically(first.device().type()) &&
         std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor* tensor) {
           return tensor->layout() == at::kStrided &&
                  tensor->scalar_type() == first.scalar_type() &&
                  tensor->device() == first.device() && !tensor->key_set().has_any(others);
         });
}

}  // namespace functorch_ext
