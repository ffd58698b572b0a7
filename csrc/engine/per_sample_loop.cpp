#include "engine/boxed.h"
#include "engine/failed_operator.h"
#include "engine/layout.h"

namespace functorch_ext {

namespace {

FallbackWarner fallback_warner = nullptr;

constexpr const char* values_read =
    " reads the value of a batched tensor into Python (as .item(), bool(), int() or an if "
    "statement on a tensor do), but the samples may differ. Use torch.where, torch.cond, "
    "torch.while_loop or another tensor operation instead.";

void check_loop_is_possible(const c10::OperatorHandle& op) {
  const auto& schema = op.schema();
  const auto traits = OperatorTraits::of(op);
  TORCH_CHECK(!traits.view, "functorch_ext.vmap: ", op.operator_name(),
              " returns a view and has no batching rule, so its result can't share memory with its "
              "argument. Use a variant that copies.");
  TORCH_CHECK(!traits.dynamic_shape, "functorch_ext.vmap: the shape of the result of ",
              op.operator_name(),
              " depends on the data, so it may differ between samples. Use a form with a static "
              "shape: torch.where(mask, x, fill) instead of selecting by a mask, or the operator "
              "outside vmap.");
  TORCH_CHECK(traits.mutates || !schema.returns().empty(),
              "functorch_ext.vmap: ", op.operator_name(), values_read);
}

}  // namespace

void per_sample_loop(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const auto& schema = op.schema();
  const auto argument_count = schema.arguments().size();
  const auto result_count = schema.returns().size();
  const Level& level = *deepest_level(op, *stack).level;
  check_loop_is_possible(op);
  for_each_written(op, torch::jit::last(*stack, argument_count),
                   [&](const at::Tensor& tensor) { check_mutable(tensor, level, op); });
  warn_of_loop(op);

  const auto samples = level.batch_size.guard_int(__FILE__, __LINE__);
  const std::vector<c10::IValue> given(stack->end() - argument_count, stack->end());
  torch::jit::drop(*stack, argument_count);

  std::vector<std::vector<c10::IValue>> results(result_count);
  // Without samples, one of zeros tells the shapes of the results.
  for (int64_t sample = 0; sample < std::max<int64_t>(samples, 1); ++sample) {
    Stack call;
    for (const auto& argument : given) {
      call.push_back(rewrite_value(argument, [&](const at::Tensor& tensor) {
        const auto& value = value_of(tensor, level);
        const auto bdim = bdim_of(tensor, level);
        if (bdim == no_bdim) {
          return value;
        }
        if (samples == 0) {
          return value.new_zeros_symint(tensor.sym_sizes());
        }
        // Kernels may rely on the memory of a tensor of its own; a write has to reach the value.
        const auto one = value.select(bdim, sample);
        return schema.is_mutable() || !is_strided(one) ? one : one.contiguous();
      }));
    }
    try {
      op.callBoxed(&call);
    } catch (const c10::Error& error) {
      note_failed_operator(op, error);
      throw;
    }
    for (size_t r = 0; r < result_count; ++r) {
      results[r].push_back(std::move(call[r]));
    }
  }

  const auto stacked = [&](const std::vector<at::Tensor>& tensors) -> at::Tensor {
    if (!tensors[0].defined()) {
      return tensors[0];
    }
    for (const auto& tensor : tensors) {
      TORCH_CHECK(!tensor.is_nested(), "functorch_ext.vmap: the result of ", op.operator_name(),
                  " is a nested tensor, and only strided and sparse ones of samples can be "
                  "stacked. Use padding and a mask; nn.TransformerEncoder does with "
                  "enable_nested_tensor=False.");
      TORCH_CHECK(is_strided(tensor) || tensor.layout() == at::kSparse,
                  "functorch_ext.vmap: the result of ", op.operator_name(), " has the layout ",
                  tensor.layout(),
                  ", in which samples can't be stacked. Make a sparse COO tensor.");
      TORCH_CHECK(tensor.sizes() == tensors[0].sizes(),
                  "functorch_ext.vmap: the shape of the result of ", op.operator_name(),
                  " depends on the data and differs between samples (", tensors[0].sizes(), " and ",
                  tensor.sizes(), "). Use an operation whose result has a static shape.");
    }
    auto result = at::stack(tensors);
    if (samples == 0) {
      result = result.index_select(
          0, at::empty({0}, result.options().dtype(at::kLong).layout(at::kStrided)));
    }
    return wrap(std::move(result), 0, level);
  };
  for (size_t r = 0; r < result_count; ++r) {
    const auto& first = results[r][0];
    std::vector<at::Tensor> tensors;
    if (first.isTensor()) {
      for (const auto& result : results[r]) {
        tensors.push_back(result.toTensor());
      }
      stack->push_back(stacked(tensors));
    } else if (first.isTensorList()) {
      c10::List<at::Tensor> list;
      for (size_t element = 0; element < first.toTensorList().size(); ++element) {
        tensors.clear();
        for (const auto& result : results[r]) {
          tensors.push_back(result.toTensorList().get(element));
        }
        list.push_back(stacked(tensors));
      }
      stack->push_back(std::move(list));
    } else {
      for (const auto& result : results[r]) {
        TORCH_CHECK(result == first, "functorch_ext.vmap: ", op.operator_name(), values_read);
      }
      stack->push_back(first);
    }
  }
  if (schema.is_mutable()) {
    after_boxed_write(op, given, level);
    restore_written(op, given, *stack);
  }
}

void set_fallback_warner(FallbackWarner warner) {
  fallback_warner = warner;
}

void warn_of_loop(const c10::OperatorHandle& op) {
  if (!fallback_warner) {
    return;
  }
  std::string name = op.schema().name();
  if (!op.schema().overload_name().empty()) {
    name += "." + op.schema().overload_name();
  }
  fallback_warner("no batching rule for " + name +
                  ": it runs once per sample in a loop, which is right but slow.");
}

c10::BoxedKernel loop_kernel() {
  return c10::BoxedKernel::makeFromFunction<&per_sample_loop>();
}

}  // namespace functorch_ext
