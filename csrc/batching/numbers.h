#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

#include "engine/below_all_levels.h"
#include "engine/derivatives.h"

// Numbers of the program in arithmetic, as in `2 * x`. PyTorch makes a tensor of type double or
// int64 of each, which every kernel then casts to the type of `x` by an operator of its own: as
// costly as all the rest. Here it is cast at once, as that operator would.
namespace functorch_ext {

inline bool is_number_to_cast(const at::Tensor& number, const at::Tensor& like) {
  const auto* impl = number.unsafeGetTensorImpl();
  // A number that became a wrapper can't be read.
  return impl->is_wrapped_number() && number.has_storage() && like.scalar_type() == at::kFloat &&
         (number.scalar_type() == at::kDouble || number.scalar_type() == at::kLong) &&
         like.device().is_cpu() && !like.unsafeGetTensorImpl()->is_wrapped_number() &&
         // A tensor subclass gets numbers as Python has them.
         !below_all_levels(like).key_set().has(c10::DispatchKey::Python);
}

inline at::Tensor cast_number(const at::Tensor& number) {
  at::Tensor cast = at::detail::empty_cpu({}, at::kFloat);
  *cast.mutable_data_ptr<float>() = number.scalar_type() == at::kDouble
                                        ? static_cast<float>(*number.const_data_ptr<double>())
                                        : static_cast<float>(*number.const_data_ptr<int64_t>());
  cast.unsafeGetTensorImpl()->set_wrapped_number(true);
  return cast;
}

// An operator on two tensors, either of which may be a number, below our kernels. (What is traced
// keeps the numbers that the program wrote.)
template <class Op, class... More>
at::Tensor redispatch_with_numbers(c10::DispatchKeySet keys, const at::Tensor& self,
                                   const at::Tensor& other, const More&... more) {
  const auto below = below_derivatives(keys);
  const bool any_number = self.unsafeGetTensorImpl()->is_wrapped_number() ||
                          other.unsafeGetTensorImpl()->is_wrapped_number();
  if (C10_UNLIKELY(any_number) && !keys.has(c10::DispatchKey::Python)) {
    if (is_number_to_cast(other, self)) {
      return Op::redispatch(below, self, cast_number(other), more...);
    }
    if (is_number_to_cast(self, other)) {
      return Op::redispatch(below, cast_number(self), other, more...);
    }
  }
  return Op::redispatch(below, self, other, more...);
}

}  // namespace functorch_ext
