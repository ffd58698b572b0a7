#include "batching/convolution_forms.h"

#include <ATen/Version.h>

namespace functorch_ext {

namespace {

// By what PyTorch's kernels, and so those that the forms are made of, use of a processor.
constexpr FormCosts with_avx512{.patch_number = 1.0, .group_weight = 2.5};
constexpr FormCosts others{.patch_number = 1.2, .group_weight = 2.4};

}  // namespace

FormCosts form_costs() {
  static const bool has_avx512 = at::get_cpu_capability() == "AVX512";
  return has_avx512 ? with_avx512 : others;
}

}  // namespace functorch_ext
