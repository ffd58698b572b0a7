#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include "engine/below_all_levels.h"
#include "engine/stack.h"

// An operator that writes to memory that it reads from another argument, too. Plain PyTorch refuses
// that where elements lie in the same place, but doesn't notice it in memory of several samples.
namespace functorch_ext {

// The memory that a tensor lies in, below all levels; null if in none.
inline const c10::StorageImpl* memory_of(const at::Tensor& tensor) {
  const auto* impl = below_all_levels(tensor).unsafeGetTensorImpl();
  return impl->unsafe_storage().unsafeGetStorageImpl();
}

enum class Overlap : uint8_t {
  None,
  Itself,   // the very tensor is read as well
  Another,  // one whose elements lie between those written to
};

// Do two tensors of one memory reach over the same part of it, within a sample?
bool reach_over_the_same(const at::Tensor& tensor, const at::Tensor& other);

template <class Each>
inline Overlap overlap_of(const at::Tensor& written, const Each& each) {
  const auto* memory = memory_of(written);
  int times = 0;
  bool another = false;
  each([&](const at::Tensor& tensor) {
    if (tensor.is_same(written)) {
      ++times;
    } else if (C10_UNLIKELY(memory && memory_of(tensor) == memory)) {
      another = another || reach_over_the_same(tensor, written);
    }
  });
  return another ? Overlap::Another : times > 1 ? Overlap::Itself : Overlap::None;
}

// Raises what plain PyTorch raises for the first sample, whose arguments share memory as the
// batch's do.
void ask_about_overlap(const c10::OperatorHandle& op, const Level& level, Stack arguments);

}  // namespace functorch_ext
