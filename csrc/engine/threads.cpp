#include "engine/threads.h"

#include <ATen/TensorIterator.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

namespace functorch_ext {

void on_all_threads(int64_t count, int64_t grain,
                    c10::function_ref<void(int64_t start, int64_t end)> work) {
  // A thread has a state of its own, by which autograd would look at the operators.
  const auto work_below_autograd = [&](int64_t start, int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    work(start, end);
  };
  if (count <= grain || threads_for_work() == 1) {
    if (count > 0) {
      work_below_autograd(0, count);
    }
    return;
  }
  // An iterator over a byte for each part: PyTorch's own loop shares those out.
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  auto parts = at::empty({count}, at::kByte);
  auto iterator = at::TensorIterator::nullary_op(parts);
  const auto* first = static_cast<const char*>(parts.const_data_ptr());
  iterator.for_each(
      [&](char** data, const int64_t*, int64_t size, int64_t rows) {
        const auto start = *data - first;
        work_below_autograd(start, start + size * rows);
      },
      grain);
}

}  // namespace functorch_ext
