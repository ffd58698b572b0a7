#include "python/compiled_kernel.h"

#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/pybind11.h>

#include <memory>

namespace functorch_ext {

std::vector<at::Tensor> run_kernel(CompiledKernel kernel, size_t outputs,
                                   const KernelInputs& inputs, const std::vector<size_t>& written) {
  c10::SmallVector<AtenTensorHandle, 16> given;
  std::vector<AtenTensorHandle> made(outputs, nullptr);
  for (const auto* tensor : inputs) {
    given.push_back(reinterpret_cast<AtenTensorHandle>(new at::Tensor(*tensor)));
  }
  {
    const c10::AutoGradMode without_grad(false);
    const c10::impl::ExcludeDispatchKeyGuard casts_are_in_the_graph(c10::autocast_dispatch_keyset);
    kernel(given.data(), made.data());
  }
  std::vector<at::Tensor> results;
  results.reserve(made.size());
  for (auto* handle : made) {
    const std::unique_ptr<at::Tensor> tensor(reinterpret_cast<at::Tensor*>(handle));
    results.push_back(tensor ? std::move(*tensor) : at::Tensor());
  }
  for (const auto position : written) {
    if (!inputs[position]->is_inference()) {
      inputs[position]->unsafeGetTensorImpl()->bump_version();
    }
  }
  if (PyErr_Occurred()) {
    throw pybind11::error_already_set();
  }
  return results;
}

}  // namespace functorch_ext
