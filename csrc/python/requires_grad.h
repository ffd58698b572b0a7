#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// Has torch.Tensor.requires_grad, the descriptor given, tell of the planes below too: a tensor of a
// transform requires grad if what it stands for does. Or gives it PyTorch's own function back.
void replace_requires_grad(const pybind11::object& descriptor, bool on);

}  // namespace functorch_ext
