#include "batching/large_memory.h"

#include <ATen/ops/empty.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace functorch_ext {

namespace {

constexpr uintptr_t page = uintptr_t{1} << 21;

}  // namespace

at::Tensor empty_in_large_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  auto memory = at::empty(sizes, options);
#ifdef MADV_HUGEPAGE
  if (memory.is_cpu() && memory.nbytes() >= 2 * page) {
    const auto start = reinterpret_cast<uintptr_t>(memory.mutable_data_ptr());
    const auto first = (start + page - 1) / page * page;  // whole pages of this tensor alone
    const auto last = (start + memory.nbytes()) / page * page;
    // Advice: where the system doesn't take it, nothing is different.
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return memory;
}

}  // namespace functorch_ext
