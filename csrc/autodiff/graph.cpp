#include "autodiff/graph.h"

#include <ATen/ops/_make_dual.h>

#include "autodiff/plane.h"

namespace functorch_ext {

at::Tensor without_graph(const at::Tensor& tensor, const LevelPtr& plane) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  at::Tensor result;
  if (depth_of(tensor) > depth_of(plane)) {
    const auto* wrapper = wrapper_of(tensor);
    result = wrap(without_graph(wrapper->value(), plane), wrapper->bdim(), wrapper->level());
  } else {
    result = at::Tensor(impl->shallow_copy_and_detach(impl->version_counter(),
                                                      /*allow_tensor_metadata_change=*/true));
  }
  const auto& tangent = tensor._fw_grad(0);
  return tangent.defined() ? at::_make_dual(result, without_graph(tangent, plane), 0) : result;
}

}  // namespace functorch_ext
