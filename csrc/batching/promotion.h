#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/native/TypeProperties.h>

#include <optional>

#include "engine/arguments.h"

namespace functorch_ext {

// Type promotion as one sample sees it.
//
// A number (rank 0) gives way to a tensor with dimensions when dtypes are promoted. A batch of
// numbers has a dimension, so physically it wouldn't: such an argument is cast first to the dtype
// that one sample's promotion gives.
class LogicalPromotion {
 public:
  template <class... Arguments>
  static LogicalPromotion of(const Level& level, const Arguments&... arguments) {
    LogicalPromotion promotion;
    bool batch_of_numbers = false;
    bool mixed = false;
    std::optional<at::ScalarType> dtype;
    at::native::ResultTypeState state = {};
    (for_each_tensor(arguments,
                     [&](const at::Tensor& tensor) {
                       batch_of_numbers =
                           batch_of_numbers || (tensor.dim() == 0 && is_batched_at(tensor, level));
                       mixed = mixed || (dtype && *dtype != tensor.scalar_type());
                       dtype = tensor.scalar_type();
                       if (tensor.scalar_type() != at::kBool) {
                         state = at::native::update_result_type_state(tensor, state);
                       }
                     }),
     ...);
    if (batch_of_numbers && mixed) {
      promotion.dtype_ = at::native::result_type(state);
    }
    return promotion;
  }

  // Is any dtype changed?
  bool casts() const {
    return dtype_ != at::ScalarType::Undefined;
  }

  // `value` as it takes part, for the logical `tensor`. Booleans promote to anything, and a
  // condition must stay one.
  at::Tensor apply(const at::Tensor& value, const at::Tensor& tensor) const {
    const bool takes_part = tensor.dim() == 0 && value.scalar_type() != at::kBool &&
                            !value.unsafeGetTensorImpl()->is_wrapped_number();
    return casts() && takes_part ? value.to(dtype_) : value;
  }

 private:
  at::ScalarType dtype_ = at::ScalarType::Undefined;  // undefined: none is changed
};

}  // namespace functorch_ext
