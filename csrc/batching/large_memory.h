#pragma once

#include <ATen/core/Tensor.h>

namespace functorch_ext {

// Memory for a tensor that a kernel is about to fill, such as the gradients of a weight by all
// samples. The system hands it out when it is touched, 4 KiB at a time, which takes longer than
// the arithmetic of many such gradients. Large tensors on a CPU get larger pages, where there are.
at::Tensor empty_in_large_pages(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace functorch_ext
