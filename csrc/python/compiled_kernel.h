#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <vector>

namespace functorch_ext {

// The function that Inductor makes of a graph: it steals its inputs and hands out its results.
using CompiledKernel = void (*)(AtenTensorHandle* inputs, AtenTensorHandle* outputs);
using KernelInputs = c10::SmallVector<const at::Tensor*, 16>;

// Runs a kernel, which writes to the inputs at the positions `written`. Python's lock is held.
std::vector<at::Tensor> run_kernel(CompiledKernel kernel, size_t outputs,
                                   const KernelInputs& inputs, const std::vector<size_t>& written);

}  // namespace functorch_ext
