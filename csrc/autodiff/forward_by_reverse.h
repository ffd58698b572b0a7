#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "engine/level.h"

// Forward mode by reverse mode, twice.
//
// A pullback is linear in its cotangent, and the pullback of that linear map is the derivative of
// the function itself: jvp(f)(t) is the derivative of <vjp(f)(u), t> by u, whatever u is. So what
// PyTorch differentiates twice in reverse mode has tangents too.
namespace functorch_ext {

// A function of tensors. Its results may be fewer than its outputs, if these have others than
// tensors among them; it is called again in a backward pass.
using TensorFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// Is the tensor one of the plane, and does reverse mode follow it there?
bool is_recorded_on(const at::Tensor& tensor, const LevelPtr& plane);

// Does one of the tensors have a tangent on the plane?
bool any_tangent_on(const std::vector<at::Tensor>& tensors, const LevelPtr& plane);

// The gradients of those inputs that `wanted` lists, for cotangents of the outputs that `given`
// lists; undefined where nothing depends on an input. Like any gradient, recorded in grad mode.
std::vector<at::Tensor> pull_back(const TensorFunction& function,
                                  const std::vector<at::Tensor>& inputs,
                                  const std::vector<size_t>& wanted,
                                  const std::vector<at::Tensor>& cotangents,
                                  const std::vector<size_t>& given, const LevelPtr& plane);

// The gradients by those inputs that are recorded on the plane, in a backward pass, for cotangents
// of all results, some undefined: the pullback of `function`, evaluated anew. It has all
// derivatives.
std::vector<at::Tensor> reevaluated_gradients(const TensorFunction& function,
                                              const std::vector<at::Tensor>& inputs,
                                              std::vector<at::Tensor> cotangents,
                                              const LevelPtr& plane, const std::string& name);

// The results of `function`, with tangents, for inputs some of which have tangents on the plane.
// `name` is what the function is called where its backward can't be differentiated.
std::vector<at::Tensor> push_forward_by_reverse(const TensorFunction& function,
                                                const std::vector<at::Tensor>& inputs,
                                                const LevelPtr& plane, const std::string& name);

}  // namespace functorch_ext
