#pragma once

#include <torch/csrc/autograd/function.h>

namespace functorch_ext {

// May this node's backward formula depend on grad mode? Where it does, the form without grad mode
// drops derivatives: of another transform's, which may be `tangents_alone`.
bool may_depend_on_grad_mode(const torch::autograd::Node& node, bool tangents_alone);

}  // namespace functorch_ext
