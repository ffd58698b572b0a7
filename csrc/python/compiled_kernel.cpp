#include "python/compiled_kernel.h"

#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/pybind11.h>

#include <algorithm>
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
  std::vector<std::unique_ptr<at::Tensor>> handles;  // of results, each once
  for (auto* handle : made) {
    auto* tensor = reinterpret_cast<at::Tensor*>(handle);
    if (!tensor) {
      results.emplace_back();
    } else if (tensor->defined()) {
      handles.emplace_back(tensor);
      results.push_back(std::move(*tensor));
    } else {  // taken already: what a function returns twice has one handle
      results.push_back(results[std::find(made.begin(), made.end(), handle) - made.begin()]);
    }
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
