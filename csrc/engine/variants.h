#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace functorch_ext {

// The operator that returns what `op` writes: add for add_, sum for sum.out. None where PyTorch has
// none, as for most custom operators.
std::optional<c10::OperatorHandle> functional_variant(const c10::OperatorHandle& op);

// The operator that copies where `op` returns a view: select_copy for select.
std::optional<c10::OperatorHandle> view_copy_variant(const c10::OperatorHandle& op);

// The view that an in-place operator on sizes and strides turns its argument into: t for t_.
c10::OperatorHandle view_variant(const c10::OperatorHandle& op);

// "aten::sum" and "dim_IntList" from "aten::sum.dim_IntList".
c10::OperatorHandle operator_called(const std::string& name);

}  // namespace functorch_ext
