#include "engine/torch_func.h"

#include <ATen/functorch/DynamicLayer.h>

namespace functorch_ext {

int64_t detail::count_layers() {
  return static_cast<int64_t>(at::functorch::getDynamicLayerStack().size());
}

bool is_of_ended_layer(const at::Tensor& tensor) {
  return at::functorch::isDeadTensorWrapper(tensor);
}

at::Tensor without_ended_layers(const at::Tensor& tensor) {
  auto value = tensor;
  while (is_of_ended_layer(value)) {
    value = at::functorch::unwrapIfDead(value);
  }
  return value;
}

}  // namespace functorch_ext
