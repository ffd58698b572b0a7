#include "functionalization/mode.h"

#include <limits>

#include "engine/boxed.h"
#include "engine/registration.h"
#include "functionalization/memory.h"

namespace functorch_ext {

namespace {

thread_local int64_t depth_limit = std::numeric_limits<int64_t>::max();

const Level* deepest_functional_level() {
  const auto* level = thread_state().innermost.get();
  while (level && (level->kind != LevelKind::Functional || level->depth >= depth_limit)) {
    level = level->parent.get();
  }
  return level;
}

bool belongs_to_plane(const at::Tensor& tensor, const Level& level) {
  return is_wrapper(tensor) && wrapper_of(tensor)->level().is_running() &&
         wrapper_of(tensor)->level().depth >= level.depth;
}

void functional_mode(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  const auto below_mode =
      keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, functional_mode_key);
  const auto* level = deepest_functional_level();
  const auto traits = OperatorTraits::of(op);
  bool ours = false;
  if (level) {
    for_each_tensor_on_stack(op, *stack, [&](const at::Tensor& tensor) {
      ours = ours || belongs_to_plane(tensor, *level);
    });
  }
  // Python is left out while a tensor is made from a list: its memory is filled in directly.
  const bool raw = c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::Python);
  if (!level || ours || (traits.composite && !raw)) {
    op.redispatchBoxed(below_mode, stack);
    return;
  }
  const FunctionalBelow below(raw ? 0 : level->depth);
  const bool outer = c10::impl::tls_is_dispatch_key_included(functional_mode_key);
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
          functional_mode_key, c10::KernelFunction::makeFromBoxedFunction<&functional_mode>(),
          "functorch_ext"));
  (void)handle;
}

FunctionalBelow::FunctionalBelow(int64_t depth)
    : outer_limit_(depth_limit),
      outer_included_(c10::impl::tls_is_dispatch_key_included(functional_mode_key)) {
  depth_limit = depth;
  c10::impl::tls_set_dispatch_key_included(functional_mode_key,
                                           deepest_functional_level() != nullptr);
}

FunctionalBelow::~FunctionalBelow() {
  depth_limit = outer_limit_;
  c10::impl::tls_set_dispatch_key_included(functional_mode_key, outer_included_);
}

}  // namespace functorch_ext
