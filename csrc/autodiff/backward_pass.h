#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include <optional>
#include <vector>

#include "engine/level.h"

// Passes through PyTorch's autograd engine on one plane.
namespace functorch_ext {

// The gradients of a backward pass on the plane, with a graph if asked to `record` one.
//
// In grad mode PyTorch's formulas take the form that can be differentiated again; without it they
// may take a faster one that drops derivatives without a word (as that of the determinant does).
// So grad mode is on, too, where another transform's derivative is to flow through the pass.
torch::autograd::variable_list gradients_of(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list& seeds,
                                            const std::vector<at::Tensor>& inputs,
                                            const LevelPtr& plane, bool keep_graph, bool record,
                                            bool allow_unused);

// torch.autograd.grad and .backward() called by the program itself, on tensors of any plane: the
// gradients, or none if they are accumulated into the leaves.
std::vector<at::Tensor> run_backward(const std::vector<at::Tensor>& outputs,
                                     const std::vector<std::optional<at::Tensor>>& cotangents,
                                     const std::vector<at::Tensor>& inputs, bool keep_graph,
                                     bool create_graph, bool allow_unused, bool accumulate);

}  // namespace functorch_ext
