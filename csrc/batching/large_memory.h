#pragma once

#include <ATen/core/Tensor.h>

namespace functorch_ext {

// Memory for a tensor that a kernel is about to fill, such as the gradients of a weight by all
// samples. The system hands it out when it is touched, 4 KiB at a time and cleared, which takes
// longer than the arithmetic of many such gradients. Large tensors on a CPU get larger pages, where
// there are, and those of tensors that were freed.
at::Tensor empty_in_large_pages(at::IntArrayRef sizes, const at::TensorOptions& options);

// Has malloc keep up to 64 MiB of freed memory for the next tensors, as it does by itself in a
// program that once frees a block of 32 MiB. Otherwise what a batch takes, many times as much as
// one sample, goes back to the system after each call and is handed out page by page in the next.
// To call once. Settings of the user's (MALLOC_TRIM_THRESHOLD_, another malloc) stay as they are.
void reuse_freed_memory();

}  // namespace functorch_ext
