#include "python/observed_event.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "engine/stack.h"
#include "engine/wrapper.h"

namespace functorch_ext {

namespace {

// Does an operator return its first argument as it is?
bool returns_its_argument(c10::ArrayRef<c10::IValue> inputs, c10::ArrayRef<c10::IValue> outputs) {
  return !inputs.empty() && !outputs.empty() && inputs[0].isTensor() && outputs[0].isTensor() &&
         inputs[0].toTensor().is_same(outputs[0].toTensor());
}

}  // namespace

void ObservedEvent::look_at(c10::ArrayRef<c10::IValue> values) {
  for_each_tensor_in(values, [&](const at::Tensor& tensor) {
    if (!is_wrapper(tensor) || !wrapper_of(tensor)->level().is_running()) {
      return;
    }
    const auto& level = wrapper_of(tensor)->level();
    if (level.depth > plane.depth) {
      plane = plane_of(level);
      batched = false;
    }
    batched = batched || (level.depth == plane.depth && wrapper_of(tensor)->is_batched());
  });
}

// Views hold what was there before, and new memory holds nothing yet. Their results mustn't even
// become objects of Python: that of detach may be about to become an object of a subclass.
bool computes_numbers(const at::RecordFunction& function, c10::ArrayRef<c10::IValue> inputs) {
  const auto op = c10::Dispatcher::singleton().findOp(*function.operator_name());
  if (!op) {
    return true;
  }
  const auto& name = op->operator_name().name;
  if (name == "aten::to") {
    // Of another dtype, a number may be another.
    return !returns_its_argument(inputs, function.outputs());
  }
  const bool is_new = name.rfind("aten::empty", 0) == 0 || name.rfind("aten::new_empty", 0) == 0;
  if (is_new || op->hasTag(at::Tag::inplace_view)) {
    return false;
  }
  const auto& results = op->schema().returns();
  return std::any_of(results.begin(), results.end(), [](const c10::Argument& result) {
    return !result.alias_info() || result.alias_info()->isWrite();
  });
}

std::vector<at::Tensor> tensors_in(c10::ArrayRef<c10::IValue> values) {
  std::vector<at::Tensor> tensors;
  for_each_tensor_in(values, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
  return tensors;
}

void wait_for_devices(const at::RecordFunction& function) {
  for_each_tensor_in(function.outputs(), [](const at::Tensor& tensor) {
    const auto device = tensor.device();
    if (device.is_cuda() || device.is_xpu()) {
      c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
    }
  });
}

}  // namespace functorch_ext
