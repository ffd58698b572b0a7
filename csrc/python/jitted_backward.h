#pragma once

#include <Python.h>

#include <memory>

#include "python/compiled_kernel.h"

namespace functorch_ext {

// How a compiled forward half and its backward half go together.
struct BackwardPlan {
  CompiledKernel backward = nullptr;
  size_t outputs = 0;                  // of the function; what else the forward half makes is saved
  std::vector<size_t> differentiable;  // which outputs have a cotangent
  std::vector<size_t> by;              // which inputs have a gradient
  std::vector<size_t> saved;           // where: positions among the inputs and then the results
  std::vector<std::vector<int64_t>> strides;  // of the cotangents
};

// Gives the results of a forward half their history: autograd's node runs the backward half, or
// where its own operators are followed, twice.gradients(compiled, ...) in Python.
void record_backward(const std::shared_ptr<const BackwardPlan>& plan, PyObject* compiled,
                     const KernelInputs& inputs, std::vector<at::Tensor>& results);

// Does anybody follow the operators of this thread? They have to see those of the function.
bool operators_are_followed();

}  // namespace functorch_ext
