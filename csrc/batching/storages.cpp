// Giving a tensor other memory: x.set_(y) and x.data = y.
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/boxed.h"
#include "engine/registration.h"

namespace functorch_ext {

namespace {

DeepestLevel deepest_of(const at::Tensor& self, const at::Tensor& source) {
  DeepestLevel deepest;
  deepest(self);
  deepest(source);
  return deepest;
}

// self.set_(source), also with an offset, sizes and strides.
void set_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const auto count = op.schema().arguments().size();
  const auto arguments = torch::jit::last(*stack, count);
  const at::Tensor self = arguments[0].toTensor();
  at::Tensor source = arguments[1].toTensor();
  const auto deepest = deepest_of(self, source);
  if (deepest.any_escaped || deepest.level->computes_operators) {
    boxed_entry(op, keys, stack);
    return;
  }
  const Level& level = *deepest.level;
  TORCH_CHECK(wrapper_at(self, level),
              "functorch_ext: set_ would give a tensor from outside a transform the memory of one "
              "inside. Return the tensor from the function instead.");
  TORCH_CHECK(!is_differentiated(self) && !is_differentiated(source),
              "functorch_ext: set_ has no derivative. Use copy_ instead.");
  const OwnMemoryLock lock(level);
  if (count > 2) {
    source = source.as_strided_symint(arguments[3].toSymIntVector(), arguments[4].toSymIntVector(),
                                      arguments[2].toSymInt());
  }
  {
    const PlaneBelow below(level);
    wrapper_of(self)->set_value(value_of(source, level).alias(), bdim_of(source, level));
  }
  share_memory(self, source);
  after_mutation(self);
  torch::jit::drop(*stack, count);
  stack->emplace_back(self);
}

// The same with a storage, which no batched tensor has, nor anything that was made inside.
void set_storage_kernel(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const at::Tensor self = torch::jit::last(*stack, op.schema().arguments().size())[0].toTensor();
  TORCH_CHECK(!is_wrapper(self) || !wrapper_of(self)->is_batched(),
              "functorch_ext.vmap: set_ can't give a batched tensor a storage, which holds no "
              "samples. Make a new tensor instead.");
  if (is_wrapper(self)) {
    disown(self);
  }
  boxed_entry(op, keys, stack);
}

// May self.data be set to the other? PyTorch asks before it does that, which is no operator. Not if
// the other is of a deeper plane.
bool can_take_data(c10::DispatchKeySet, const at::Tensor& self, const at::Tensor& data) {
  const auto deepest = deepest_of(self, data);
  return deepest.level && wrapper_at(self, *deepest.level);
}

template <auto kernel>
void add_boxed(const char* name, const char* overload) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
  register_kernel(op, entry_key, c10::KernelFunction::makeFromBoxedFunction<kernel>());
}

}  // namespace

void register_storages_rules() {
  add_boxed<&set_kernel>("aten::set_", "source_Tensor");
  add_boxed<&set_kernel>("aten::set_", "source_Tensor_storage_offset");
  add_boxed<&set_storage_kernel>("aten::set_", "source_Storage");
  add_boxed<&set_storage_kernel>("aten::set_", "source_Storage_storage_offset");
  register_kernel(
      c10::Dispatcher::singleton().findSchemaOrThrow("aten::_has_compatible_shallow_copy_type", ""),
      entry_key, c10::KernelFunction::makeFromUnboxedRuntimeFunction(&can_take_data));
}

}  // namespace functorch_ext
