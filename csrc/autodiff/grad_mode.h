#pragma once

#include <torch/csrc/autograd/function.h>

namespace functorch_ext {

// May this node's backward formula depend on grad mode? Where it does, the form without grad mode
// drops derivatives.
bool may_depend_on_grad_mode(const torch::autograd::Node& node);

}  // namespace functorch_ext
