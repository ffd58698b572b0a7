// Operators with out= arguments, under vmap.
#include <ATen/native/Resize.h>

#include "engine/boxed.h"
#include "engine/overlap.h"
#include "engine/variants.h"

namespace functorch_ext {

namespace {

// Are all arguments that the operator writes to tensors given as out=?
bool writes_out_alone(const c10::FunctionSchema& schema) {
  bool any = false;
  for (const auto& argument : schema.arguments()) {
    if (argument.alias_info() && argument.alias_info()->isWrite()) {
      any = true;
      if (!argument.is_out() || argument.type()->kind() != c10::TypeKind::TensorType) {
        return false;
      }
    }
  }
  return any;
}

// The result as a value with a bdim, of the dtype that `out` has.
at::Tensor batched_value(const at::Tensor& result, const at::Tensor& out, const Level& level) {
  const auto value = value_of(result, level).to(out.scalar_type());
  if (is_batched_at(result, level)) {
    return value;
  }
  auto sizes = value.sym_sizes().vec();
  sizes.insert(sizes.begin(), level.batch_size);
  return value.expand_symint(sizes).clone(at::MemoryFormat::Contiguous);
}

// PyTorch would give a view other memory, or more of its base's.
void check_not_resized_as_view(const c10::OperatorHandle& op, const at::Tensor& out,
                               const at::Tensor& result) {
  TORCH_CHECK(out.sym_sizes() == result.sym_sizes() ||
                  !(out.is_view() || wrapper_of(out)->viewed().base.defined()),
              "functorch_ext.vmap: ", op.operator_name(), " would resize its out argument from ",
              out.sym_sizes(), " to ", result.sym_sizes(),
              ", but that is a view of another tensor. Take a view of the result's shape.");
}

void write_out(const at::Tensor& out, const at::Tensor& result, const Level& level) {
  TORCH_CHECK(at::canCast(result.scalar_type(), out.scalar_type()), "result type ",
              result.scalar_type(), " can't be cast to the desired output type ",
              out.scalar_type());
  if (at::native::resize_output_check_symint(out, result.sym_sizes())) {
    const auto bdim = bdim_of(result, level);
    wrapper_at(out, level)
        ->set_value(batched_value(result, out, level), bdim == no_bdim ? 0 : bdim);
    after_mutation(out);
  } else {
    out.copy_(result);
  }
}

}  // namespace

bool compute_and_write(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto& schema = op.schema();
  const auto variant = writes_out_alone(schema) ? functional_variant(op) : std::nullopt;
  if (!variant) {
    return false;
  }
  const auto count = schema.arguments().size();
  const std::vector<c10::IValue> given(stack->end() - count, stack->end());
  Stack call;
  for (const auto& argument : variant->schema().arguments()) {
    const auto position = schema.argumentIndexWithName(argument.name());
    if (!position) {
      return false;
    }
    call.push_back(given[*position]);
  }
  std::vector<at::Tensor> outs;
  for_each_written(op, given, [&](const at::Tensor& out) {
    check_mutable(out, level, op);
    const auto each = [&](const auto& visit) { for_each_tensor_in(given, visit); };
    if (C10_UNLIKELY(overlap_of(out, each) != Overlap::None)) {
      ask_about_overlap(op, level, given);
    }
    outs.push_back(out);
  });
  variant->callBoxed(&call);
  TORCH_INTERNAL_ASSERT(call.size() == outs.size());
  torch::jit::drop(*stack, count);
  for (size_t i = 0; i < outs.size(); ++i) {
    check_not_resized_as_view(op, outs[i], call[i].toTensor());
    write_out(outs[i], call[i].toTensor(), level);
    stack->emplace_back(outs[i]);
  }
  return true;
}

}  // namespace functorch_ext
