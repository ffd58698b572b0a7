#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// For releases of PyTorch in which `torch.autograd.Function.apply` is a builtin function:
// plain_apply(apply) is PyTorch's own, called as f(cls, *args, **kwargs). replace_apply(apply, f)
// has f called in its place unless it is PyTorch's own affair (plain_application.h), wherever a
// program has stored it; None undoes that.
void bind_replaced_apply(pybind11::module_& module);

}  // namespace functorch_ext
