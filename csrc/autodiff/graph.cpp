#include "autodiff/graph.h"

#include <ATen/ops/_make_dual.h>

#include "autodiff/plane.h"

namespace functorch_ext {

at::Tensor without_graph(const at::Tensor& tensor, const LevelPtr& plane, Tangents tangents) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  at::Tensor result;
  if (depth_of(tensor) > depth_of(plane)) {
    const auto* wrapper = wrapper_of(tensor);
    result =
        wrap(without_graph(wrapper->value(), plane, tangents), wrapper->bdim(), wrapper->level());
  } else {
    result = at::Tensor(impl->shallow_copy_and_detach(impl->version_counter(),
                                                      /*allow_tensor_metadata_change=*/true));
  }
  const auto& tangent = tensor._fw_grad(0);
  if (!tangent.defined()) {
    return result;
  }
  return at::_make_dual(
      result, tangents == Tangents::Cut ? without_graph(tangent, plane, tangents) : tangent, 0);
}

}  // namespace functorch_ext
