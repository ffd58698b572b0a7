#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <vector>

namespace functorch_ext {

// Tensors of a class of their own, such as those sharded over processes, which don't mix with plain
// ones: what differentiation makes for them is made by Python. Each function returns nothing where
// a plain tensor will do.
struct SubclassMakers {
  // The cotangent of a number.
  std::function<std::optional<at::Tensor>(const at::Tensor&)> seed;
  // See standard_basis.
  std::function<std::optional<std::vector<at::Tensor>>(const std::vector<at::Tensor>&,
                                                       const c10::SymInt&, const c10::SymInt&)>
      basis;
};

void set_subclass_makers(SubclassMakers makers);

// Null if none of the tensors, or of the values below, is of a class of its own, or nobody makes
// such.
const SubclassMakers* subclass_makers_for(at::TensorList tensors);

}  // namespace functorch_ext
