#include "functionalization/mode.h"

#include "engine/boxed.h"
#include "engine/registration.h"
#include "engine/torch_func.h"
#include "functionalization/memory.h"

namespace functorch_ext {

namespace {

const Level* deepest_functional_level(int64_t layers) {
  const auto& state = thread_state();
  const auto* level = state.innermost.get();
  while (level && (!level->computes_operators || level->depth >= state.functional_below ||
                   level->layers > layers)) {
    level = level->parent.get();
  }
  return level;
}

// On the key that is ahead of torch.func's: operators on wrappers of levels inside its transforms,
// and all operators while functionalize runs.
void ahead_of_torch_func(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (call_without_ended_layers(op, keys, stack)) {
    return;
  }
  const auto below_mode = keys_below(ahead_key, keys);
  const auto layers = running_layers();
  const auto deepest = deepest_level(op, *stack);
  if (deepest.any_escaped) {
    rewrite_stack(*stack, op.schema().arguments().size(), without_escaped);
    op.callBoxed(stack);
    return;
  }
  if (deepest.level && layers > deepest.level->layers) {
    op.redispatchBoxed(below_mode, stack);
    return;
  }
  const auto* level = deepest_functional_level(layers);
  const bool ours = level && deepest.level && deepest.level->depth >= level->depth;
  if (deepest.level && (ours || !level) && layers > 0) {
    op.redispatchBoxed(keys_below(c10::DispatchKey::FuncTorchDynamicLayerFrontMode, keys), stack);
    return;
  }
  const auto traits = OperatorTraits::of(op);
  // Python is left out while a tensor is made from a list: its memory is filled in directly.
  const bool raw = c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::Python);
  if (!level || ours || layers > level->layers || (traits.composite && !raw)) {
    op.redispatchBoxed(below_mode, stack);
    return;
  }
  const FunctionalBelow below(raw ? 0 : level->depth);
  const bool outer = c10::impl::tls_is_dispatch_key_included(ahead_key);
  if (!raw && op.schema().name() == "aten::lift_fresh") {
    const auto tensor = torch::jit::pop(*stack).toTensor();
    stack->emplace_back(allocate(at::lift_fresh_copy(tensor), *level));
    return;
  }
  if (outer) {
    op.callBoxed(stack);
  } else {
    op.redispatchBoxed(below_mode, stack);
  }
  // Views of tensors from outside and writes to them are as without functionalize.
  if (!raw && !traits.view && !traits.mutates) {
    rewrite_stack(*stack, op.schema().returns().size(),
                  [&](const at::Tensor& result) { return allocate(result, *level); });
  }
}

}  // namespace

void register_functional_mode() {
  static auto* handle =
      new c10::RegistrationHandleRAII(c10::Dispatcher::singleton().registerFallback(
          ahead_key, c10::KernelFunction::makeFromBoxedFunction<&ahead_of_torch_func>(),
          "functorch_ext"));
  (void)handle;
}

FunctionalBelow::FunctionalBelow(int64_t depth)
    : depth_(depth), outer_included_(c10::impl::tls_is_dispatch_key_included(ahead_key)) {
  c10::impl::tls_set_dispatch_key_included(ahead_key,
                                           deepest_functional_level(running_layers()) != nullptr);
}

FunctionalBelow::~FunctionalBelow() {
  c10::impl::tls_set_dispatch_key_included(ahead_key, outer_included_);
}

}  // namespace functorch_ext
