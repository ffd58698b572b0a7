// What PyTorch's forward mode asks of a tensor when it gives it a tangent.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/extent.h"

namespace functorch_ext {

namespace {

// A dual tensor belongs to the plane of its primal; the tangent may come from a deeper one (a
// Jacobian's basis). So not the deepest level decides here: autograd sees the primal's plane first.
at::Tensor make_dual_entry(c10::DispatchKeySet keys, const at::Tensor& primal,
                           const at::Tensor& tangent, int64_t dual_level) {
  return at::_ops::_make_dual::redispatch(below_entry(keys), primal, tangent, dual_level);
}

at::Tensor make_dual_landing(c10::DispatchKeySet, const at::Tensor& primal, const at::Tensor&,
                             int64_t) {
  if (!is_wrapper(primal)) {
    return at::alias(primal);
  }
  const auto* wrapper = wrapper_of(primal);
  PlaneBelow below(wrapper->level());
  return wrap(at::alias(wrapper->value()), wrapper->bdim(), wrapper->level());
}

// Could any view of the one be taken of the other? Wrappers have no storage to compare: their
// sizes, strides and offset, which PyTorch compares next, decide. (Nor do their values tell:
// functionalize lays those out in its own way.)
bool has_same_storage_numel(c10::DispatchKeySet, const at::Tensor&, const at::Tensor&) {
  return true;
}

at::Tensor new_zeros_with_same_feature_meta_rule(Level&, const at::Tensor& self,
                                                 const at::Tensor& other, int64_t) {
  const c10::SymInt elements =
      other.sym_storage_offset() + 1 + distance_to_last(other.sym_sizes(), other.sym_strides());
  // A view may be of another dtype than its base, as the real part is.
  const auto dtype = other.scalar_type();
  auto zeros = self.new_zeros_symint(c10::SymIntArrayRef(&elements, 1), dtype);
  if (is_wrapper(other)) {
    // Different samples of the primal may be written to: so must be those of the tangent.
    zeros = zeros + other.new_zeros_symint(c10::SymIntArrayRef(&elements, 1), dtype);
  }
  return zeros.as_strided_symint(other.sym_sizes(), other.sym_strides(),
                                 other.sym_storage_offset());
}

}  // namespace

void register_dual_rules() {
  const auto kernels_of = [](const char* name, auto* entry, auto* landing) {
    using c10::KernelFunction;
    const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
    note_registered(op, /*has_rule=*/true);
    register_kernel(op, entry_key, KernelFunction::makeFromUnboxedRuntimeFunction(entry));
    register_kernel(op, landing_key, KernelFunction::makeFromUnboxedRuntimeFunction(landing));
  };
  kernels_of("aten::_make_dual", &make_dual_entry, &make_dual_landing);
  kernels_of("aten::_has_same_storage_numel", &has_same_storage_numel, &has_same_storage_numel);
  add<at::_ops::_new_zeros_with_same_feature_meta>(new_zeros_with_same_feature_meta_rule);
}

}  // namespace functorch_ext
