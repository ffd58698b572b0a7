// What any operator does on a Functional level, told from its schema.
#include <ATen/Functions.h>

#include "engine/arguments.h"
#include "engine/boxed.h"
#include "engine/extent.h"
#include "engine/variants.h"
#include "functionalization/level.h"
#include "functionalization/memory.h"
#include "functionalization/mode.h"

namespace functorch_ext {

namespace {

using Arguments = std::vector<c10::IValue>;

Arguments pop_arguments(const c10::OperatorHandle& op, Stack& stack) {
  const auto count = op.schema().arguments().size();
  Arguments arguments(std::make_move_iterator(stack.end() - count),
                      std::make_move_iterator(stack.end()));
  stack.resize(stack.size() - count);
  return arguments;
}

bool is_written(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
}

// All tensors in a value, undefined ones too: their positions count.
void collect_tensors(const c10::IValue& value, std::vector<at::Tensor>& tensors) {
  if (value.isTensor()) {
    tensors.push_back(value.toTensor());
  } else if (value.isNone()) {
    tensors.emplace_back();
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      tensors.push_back(tensor);
    }
  }
}

// Does a write through a view make the numbers of its memory other ones?
bool is_conjugated(const Place& place) {
  bool conjugated = false;
  bool negated = false;
  for (const auto& view : place.chain) {
    conjugated = conjugated != (view.op.schema().name() == "aten::_conj");
    negated = negated != (view.op.schema().name() == "aten::_neg_view");
  }
  return conjugated || negated;
}

// The first tangent that comes to a tensor through a view is written to zeros made for its base, by
// strides alone.
void check_tangents(const c10::OperatorHandle& op, const Arguments& arguments,
                    const std::vector<at::Tensor>& written, const Level& level) {
  const auto has_tangent = [](const at::Tensor& tensor) {
    return tensor._fw_grad(/*level=*/0).defined();
  };
  bool any = false;
  for (const auto& argument : arguments) {
    visit_tensors(argument, [&](const at::Tensor& tensor) { any = any || has_tangent(tensor); });
  }
  for (const auto& tensor : written) {
    TORCH_CHECK_NOT_IMPLEMENTED(
        !any || !tensor.defined() || has_tangent(tensor) ||
            !is_conjugated(*place_of(tensor, level)),
        "functorch_ext.functionalize: ", op.operator_name(),
        " would write a tangent through a conjugated or negated view of a tensor that has none. "
        "Write to the tensor itself, what is conjugated or negated: x.copy_(y.conj()).");
  }
}

std::vector<at::Tensor> written_tensors(const c10::OperatorHandle& op, const Arguments& arguments,
                                        const Level& level) {
  std::vector<at::Tensor> tensors;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (is_written(op.schema().arguments()[i])) {
      collect_tensors(arguments[i], tensors);
    }
  }
  for (const auto& tensor : tensors) {
    TORCH_CHECK(!tensor.defined() || place_of(tensor, level),
                "functorch_ext.functionalize: ", op.operator_name(),
                " would write to a tensor from outside the function. Pass it as an argument, or "
                "use the out-of-place form of the operator.");
  }
  check_tangents(op, arguments, tensors, level);
  return tensors;
}

void push_results(const c10::OperatorHandle& op, const Arguments& given,
                  const std::vector<c10::IValue>& fresh, Stack& stack) {
  size_t next = 0;
  for (const auto& result : op.schema().returns()) {
    if (!is_written(result)) {
      stack.push_back(fresh[next++]);
      continue;
    }
    for (size_t i = 0; i < given.size(); ++i) {
      const auto& argument = op.schema().arguments()[i];
      if (is_written(argument) && *argument.alias_info() == *result.alias_info()) {
        stack.push_back(given[i]);
        break;
      }
    }
  }
}

// Another memory for a tensor that changes its size: nothing else may look at the old one.
void reallocate(const c10::OperatorHandle& op, const at::Tensor& tensor, at::Tensor value,
                const Level& level) {
  const auto* place = place_of(tensor, level);
  TORCH_CHECK(place->chain.empty(), "functorch_ext.functionalize: ", op.operator_name(),
              " would resize a view, which functional operators can't express.");
  become(tensor, allocate(std::move(value), level));
}

// PyTorch's own operators that write to an argument besides what they compute (running statistics,
// the noise of rrelu) don't move its version: their formulas save it and want what was written.
bool moves_version(const c10::OperatorHandle& op, bool is_out) {
  const auto& name = op.schema().name();
  return is_out || name.back() == '_' || !op.schema().getNamespace().has_value() ||
         *op.schema().getNamespace() != "aten";
}

// Writes what a functional operator returned to the tensor that the program's operator writes to.
void store(const c10::OperatorHandle& op, bool is_out, const at::Tensor& tensor, at::Tensor value,
           const Level& level) {
  TORCH_CHECK(c10::canCast(value.scalar_type(), tensor.scalar_type()), "result type ",
              value.scalar_type(), " can't be cast to the desired output type ",
              tensor.scalar_type());
  if (value.scalar_type() != tensor.scalar_type() || value.device() != tensor.device()) {
    value = value.to(tensor.options());
  }
  if (value.sym_sizes() == tensor.sym_sizes()) {
    write(tensor, std::move(value), level);
  } else {
    TORCH_CHECK(is_out, "output with shape ", tensor.sym_sizes(),
                " doesn't match the broadcast shape ", value.sym_sizes());
    reallocate(op, tensor, std::move(value), level);
  }
  if (moves_version(op, is_out)) {
    after_mutation(tensor);
  }
}

void mutate(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto given = pop_arguments(op, *stack);
  const auto written = written_tensors(op, given, level);
  const auto variant = functional_variant(op);
  const auto& arguments = op.schema().arguments();
  bool is_out = false;

  Stack call;
  for (size_t i = 0; i < given.size(); ++i) {
    is_out = is_out || arguments[i].is_out();
    if (variant && arguments[i].is_out()) {
      continue;
    }
    call.push_back(given[i]);
    // Without a functional form the operator writes to a copy that nobody else sees.
    const bool copies = !variant && is_written(arguments[i]);
    rewrite_stack(call, 1, [&](const at::Tensor& tensor) {
      const auto value = current_value(tensor, level);
      return copies ? value.clone() : value;
    });
  }
  const Arguments called = call;
  (variant ? *variant : op).callBoxed(&call);

  std::vector<c10::IValue> fresh;
  std::vector<at::Tensor> values;
  size_t position = 0;
  for (const auto& result : op.schema().returns()) {
    if (!is_written(result)) {
      fresh.push_back(call[position]);
      rewrite_stack(fresh, 1, [&](const at::Tensor& tensor) { return allocate(tensor, level); });
      ++position;
    } else if (!variant) {
      ++position;
    }
  }
  if (variant) {
    for (; position < call.size(); ++position) {
      collect_tensors(call[position], values);
    }
  } else {
    for (size_t i = 0; i < called.size(); ++i) {
      if (is_written(arguments[i])) {
        collect_tensors(called[i], values);
      }
    }
  }
  TORCH_INTERNAL_ASSERT(values.size() == written.size(), op.operator_name());
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i].defined()) {
      store(op, is_out, written[i], std::move(values[i]), level);
    }
  }
  push_results(op, given, fresh, *stack);
}

// copy_ has a functional form without a derivative, so what it writes is made of operators that
// have one. The copy is never the source itself, which may be an input.
void copy(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto given = pop_arguments(op, *stack);
  const auto self = written_tensors(op, given, level)[0];
  const auto source = current_value(given[1].toTensor(), level);
  auto value = source;
  if (source.scalar_type() != self.scalar_type() || source.device() != self.device()) {
    value = source.to(self.options(), given[2].toBool());
  }
  if (source.sym_sizes() != self.sym_sizes()) {
    value = removes_views(level) ? at::expand_copy_symint(value, self.sym_sizes())
                                 : value.expand_symint(self.sym_sizes()).clone();
  } else if (value.is_same(source)) {
    value = source.clone();
  }
  write(self, std::move(value), level);
  after_mutation(self);
  stack->emplace_back(self);
}

bool changes_metadata(const c10::OperatorHandle& op) {
  return op.hasTag(at::Tag::inplace_view);
}

void resize(const c10::OperatorHandle& op, const Arguments& given, c10::SymIntArrayRef sizes,
            const Level& level) {
  const auto tensor = given[0].toTensor();
  if (tensor.sym_sizes() != sizes) {
    const auto value = current_value(tensor, level);
    reallocate(op, tensor,
               at::resize_symint(value, sizes, given.back().toOptional<at::MemoryFormat>()), level);
  }
}

// Operators that change which elements a tensor stands for, not what they are: t_, resize_, set_.
void change_metadata(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  auto given = pop_arguments(op, *stack);
  written_tensors(op, given, level);
  const auto& name = op.schema().name();
  const auto self = given[0].toTensor();
  if (name == "aten::resize_") {
    resize(op, given, given[1].toSymIntVector(), level);
  } else if (name == "aten::resize_as_") {
    resize(op, given, given[1].toTensor().sym_sizes(), level);
  } else if (name == "aten::set_") {
    TORCH_CHECK(
        op.schema().overload_name() == "source_Tensor" && place_of(given[1].toTensor(), level),
        "functorch_ext.functionalize: ", op.operator_name(),
        " can only take another tensor made inside the function.");
    const auto source = given[1].toTensor();
    current_value(source, level);
    become(self, source);
  } else {
    become(self, view_of(view_variant(op), given, level)[0]);
  }
  after_mutation(self);
  stack->emplace_back(self);
}

void view(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  const auto given = pop_arguments(op, *stack);
  const auto results = view_of(op, given, level);
  for (const auto& argument : given) {
    if (argument.isTensor()) {
      for (const auto& result : results) {
        share_version_counter(result, argument.toTensor());
      }
      break;
    }
  }
  if (op.schema().returns()[0].type()->isSubtypeOf(*c10::ListType::ofTensors())) {
    stack->emplace_back(results);
  } else {
    stack->insert(stack->end(), results.begin(), results.end());
  }
}

// A tensor of this level doesn't tell whether its value is differentiated, by which PyTorch chooses
// an operator without a derivative.
c10::OperatorHandle with_derivative(const c10::OperatorHandle& op) {
  return op.schema().name() == "aten::_embedding_bag_forward_only"
             ? operator_called("aten::_embedding_bag")
             : op;
}

void compute_below(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  rewrite_stack(*stack, op.schema().arguments().size(),
                [&](const at::Tensor& tensor) { return current_value(tensor, level); });
  with_derivative(op).callBoxed(stack);
  rewrite_stack(*stack, op.schema().returns().size(),
                [&](const at::Tensor& result) { return allocate(result, level); });
}

// The zeros that become a tangent are laid out as the program's tensor is. Its value may be laid
// out otherwise, if a mutation replaced it.
void make_tangent(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  auto given = pop_arguments(op, *stack);
  const auto primal = given[1].toTensor();
  auto like = current_value(primal, level);
  const auto sizes = primal.sym_sizes();
  const auto strides = primal.sym_strides();
  const auto offset = primal.sym_storage_offset();
  if (like.sym_strides() != strides || like.sym_storage_offset() != offset) {
    like = like.new_empty_symint({offset + 1 + distance_to_last(sizes, strides)})
               .as_strided_symint(sizes, strides, offset);
  }
  given[0] = current_value(given[0].toTensor(), level);
  given[1] = like;
  Stack call(given);
  op.callBoxed(&call);
  stack->emplace_back(allocate(call[0].toTensor(), level));
}

// In training, native_batch_norm writes to its running statistics, which its schema doesn't tell.
bool writes_statistics(const c10::OperatorHandle& op, const Stack& stack) {
  if (op.schema().name() != "aten::native_batch_norm" || !op.schema().overload_name().empty()) {
    return false;
  }
  const auto* arguments = &stack[stack.size() - op.schema().arguments().size()];
  return arguments[3].isTensor() && arguments[3].toTensor().defined() && arguments[5].toBool();
}

}  // namespace

void FunctionalLevel::compute(const c10::OperatorHandle& op, Stack* stack) const {
  const FunctionalBelow below(depth);
  const auto traits = OperatorTraits::of(op);
  if (writes_statistics(op, *stack)) {
    mutate(operator_called("aten::_native_batch_norm_legit"), *this, stack);
  } else if (changes_metadata(op)) {
    change_metadata(op, *this, stack);
  } else if (op.schema().name() == "aten::copy_") {
    copy(op, *this, stack);
  } else if (op.schema().name() == "aten::_new_zeros_with_same_feature_meta") {
    make_tangent(op, *this, stack);
  } else if (traits.mutates) {
    mutate(op, *this, stack);
  } else if (traits.view) {
    view(op, *this, stack);
  } else {
    compute_below(op, *this, stack);
  }
}

}  // namespace functorch_ext
