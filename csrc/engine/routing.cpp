#include "engine/routing.h"

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

namespace functorch_ext {

namespace {

// Forward mode keeps all its tangents at dual level 0, the only one that PyTorch has.
bool has_tangent(const at::Tensor& tensor) {
  return tensor._fw_grad(0).defined();
}

bool in_backward_without_graph(const Level& level) {
  return level.backward_without_graph.load(std::memory_order_relaxed) > 0;
}

// Tagged as if the values of its arguments decided its result's shape, which the arguments' shapes
// do.
bool has_static_shape_all_the_same(const c10::OperatorHandle& op) {
  const auto& name = op.schema().name();
  return name == "aten::linalg_lstsq" || name == "aten::_ctc_loss";
}

// Not the running statistics that a normalization updates: PyTorch doesn't count those writes, and
// its derivative formulas save such tensors.
bool counts_writes(const c10::FunctionSchema& schema) {
  const auto& arguments = schema.arguments();
  return schema.name().back() == '_' ||
         std::any_of(arguments.begin(), arguments.end(),
                     [](const c10::Argument& argument) { return argument.is_out(); });
}

}  // namespace

OperatorTraits OperatorTraits::of(const c10::OperatorHandle& op) {
  OperatorTraits traits;
  traits.composite = op.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd);
  const auto& schema = op.schema();
  traits.mutates = schema.is_mutable();
  const bool counts = traits.mutates && counts_writes(schema);
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    traits.written |= uint64_t{counts && alias && alias->isWrite()} << i;
  }
  for (const auto& result : schema.returns()) {
    traits.view = traits.view || (result.alias_info() && !result.alias_info()->isWrite());
  }
  traits.tracked_view = traits.view && schema.name() != "aten::detach";
  for (const auto tag : op.getTags()) {
    traits.random = traits.random || tag == at::Tag::nondeterministic_seeded;
    traits.dynamic_shape = traits.dynamic_shape || tag == at::Tag::dynamic_output_shape;
  }
  traits.dynamic_shape = traits.dynamic_shape && !has_static_shape_all_the_same(op);
  return traits;
}

bool differentiates_at_all(c10::DispatchKeySet keys, const Level& level) {
  return keys.has_any(c10::autograd_dispatch_keyset) && thread_state().computing != &level;
}

bool transform_records(const OperatorTraits& traits, const Level& level) {
  if (level.forward_running.load(std::memory_order_relaxed) > 0) {
    return true;
  }
  if (level.reverse_running.load(std::memory_order_relaxed) == 0) {
    return false;
  }
  // Without grad mode nothing is recorded. Views and mutations are tracked all the same, so that a
  // later write under grad mode is seen; a backward pass of ours makes none that could be.
  return c10::GradMode::is_enabled() ||
         ((traits.view || traits.mutates) && !in_backward_without_graph(level));
}

bool has_derivative(const at::Tensor& tensor) {
  return (tensor.requires_grad() && c10::GradMode::is_enabled()) || has_tangent(tensor);
}

bool needs_lift(const at::Tensor& tensor, const Level& level) {
  if (wrapper_at(tensor, level)) {
    return false;
  }
  // On any plane below: autograd of this plane may call formulas without grad mode, which is left
  // in place for the planes below only while a rule of this plane runs.
  return tensor.requires_grad() || has_tangent(tensor) ||
         tensor.key_set().has_any(torch_func_wrappers |
                                  c10::DispatchKeySet(c10::DispatchKey::Python)) ||
         (is_wrapper(tensor) && needs_lift(wrapper_of(tensor)->value(), level));
}

void PlaneBelow::restore_autograd(const c10::impl::LocalDispatchKeySet& state) {
  if (c10::InferenceMode::is_enabled()) {
    return;
  }
  saved_keys_ = state;
  restored_autograd_ = true;
  auto changed = state;
  changed.excluded_ = changed.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  c10::impl::_force_tls_local_dispatch_key_set(changed);
}

void PlaneBelow::restore_grad_mode(const Level& level) {
  saved_grad_mode_ = c10::GradMode::is_enabled();
  // Off inside: by the program, with torch.no_grad(), which is meant for all planes; or by a
  // backward pass, for its own plane alone.
  const bool below = level.grad_mode_below.load(std::memory_order_relaxed) &&
                     (saved_grad_mode_ || in_backward_without_graph(level));
  if (saved_grad_mode_ != below) {
    restored_grad_mode_ = true;
    c10::GradMode::set_enabled(below);
  }
}

void PlaneBelow::restore_forward_mode(const Level& level) {
  auto& state = c10::AutogradState::get_tls_state();
  forward_mode_below_ = level.forward_mode_below.load(std::memory_order_relaxed);
  if (state.get_fw_grad_mode() != forward_mode_below_) {
    restored_forward_mode_ = true;
    state.set_fw_grad_mode(forward_mode_below_);
  }
}

at::Tensor without_escaped(const at::Tensor& tensor) {
  at::Tensor current = tensor;
  while (is_wrapper(current) && !wrapper_of(current)->level().is_running()) {
    current = escaped_value(*wrapper_of(current));
  }
  return current;
}

void raise_written_below(const c10::OperatorHandle& op) {
  TORCH_CHECK(
      false, "functorch_ext: ", op.operator_name(),
      " would write in place, inside a transform, to a tensor from outside (or computed "
      "from such tensors alone, made by torch.Tensor(...), or on memory of NumPy's), and one "
      "of the two is being differentiated. Use the out-of-place form of the operator, or "
      "write into memory made inside: with x.new_zeros(...), torch.zeros_like(x), or "
      "shared.clone() (if shared requires grad: torch.zeros_like(shared) + shared).");
}

void check_mutable(const at::Tensor& self, const Level& level, const c10::OperatorHandle& op) {
  TORCH_CHECK(is_batched_at(self, level) || make_batched(self, level),
              "functorch_ext.vmap: ", op.operator_name(),
              " would write in-place a value that differs between samples into a tensor from "
              "outside, which all samples share. So are those computed from such tensors alone, "
              "made by torch.Tensor(...) ",
              c10::InferenceMode::is_enabled() ? "or inside torch.inference_mode(), " : "",
              "or on memory of NumPy's. Use the out-of-place form of the operator, or write into "
              "memory made inside: with x.new_zeros(...), torch.zeros_like(x), or shared.clone() "
              "(if shared requires grad: torch.zeros_like(shared) + shared).");
}

}  // namespace functorch_ext
