#include "batching/convolution_forms.h"

#include <ATen/Version.h>

namespace functorch_ext {

namespace {

// By what PyTorch's kernels, and so those that the forms are made of, use of a processor.
constexpr FormCosts with_avx512{.patch_number = 0.7, .group_weight = 2.0};
constexpr FormCosts others{.patch_number = 0.6, .group_weight = 1.5};

}  // namespace

FormCosts form_costs() {
  static const bool has_avx512 = at::get_cpu_capability() == "AVX512";
  return has_avx512 ? with_avx512 : others;
}

}  // namespace functorch_ext
