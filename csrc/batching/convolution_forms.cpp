#include "batching/convolution_forms.h"

#include <ATen/Version.h>

namespace functorch_ext {

double most_places_per_channel() {
  // By what PyTorch's kernels, and so those that the forms are made of, use of a processor.
  static const double most = at::get_cpu_capability() == "AVX512" ? 2.5 : 2.0;
  return most;
}

}  // namespace functorch_ext
