#pragma once

#include <ATen/Parallel.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>

// PyTorch's threads for kernels of our own. at::parallel_for is a template, which shares nothing
// out unless it is compiled with the OpenMP that PyTorch was built with.
namespace functorch_ext {

// The threads that may share work from here. Within work that is shared already, one.
inline int64_t threads_for_work() {
  return at::in_parallel_region() ? 1 : at::get_num_threads();
}

// Does `count` times the same work keep the threads busy, none of them for more than a quarter
// longer than their mean?
inline bool keeps_threads_busy(int64_t count) {
  const auto threads = threads_for_work();
  return (count + threads - 1) / threads * threads * 4 <= count * 5;
}

// Calls work(start, end) for parts of [0, count), of `grain` or more, each on a thread of its own.
// Operators that it calls take plain tensors, and run on that thread alone; autograd doesn't see
// them.
void on_all_threads(int64_t count, int64_t grain,
                    c10::function_ref<void(int64_t start, int64_t end)> work);

}  // namespace functorch_ext
