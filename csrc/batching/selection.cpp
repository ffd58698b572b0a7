// Selections whose size depends on numbers in a tensor, where the samples agree on it or where
// there is a static form.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

at::Tensor masked_select_rule(Level& level, const at::Tensor& self, const at::Tensor& mask) {
  TORCH_CHECK(mask.scalar_type() == at::kBool, "masked_select: expected BoolTensor for mask");
  const auto both = at::broadcast_tensors({self, mask});
  if (is_batched_at(mask, level)) {
    const auto places = agreed_count(both[1]);
    TORCH_CHECK(
        places,
        "functorch_ext.vmap: the shape of the result of aten::masked_select depends on the "
        "data, so it may differ between samples. Use an operation whose result has a static "
        "shape (torch.where instead of a mask, for example).");
    const auto flat = at::nonzero_static(both[1].flatten(), *places).squeeze(1);
    return at::index_select(both[0].flatten(), 0, flat);
  }
  auto value = at_front(both[0], level);
  auto where = value_of(both[1], level);
  if (where.dim() == 0) {
    value = value.unsqueeze(1);
    where = where.unsqueeze(0);
  }
  return wrap(at::index(value, {std::nullopt, where}), 0, level);
}

// Each number that isn't zero goes to its place among them; those beyond `size` to one more place.
at::Tensor nonzero_static_rule(Level& level, const at::Tensor& self, c10::SymInt size,
                               int64_t fill_value) {
  const auto value = at_front(self, level);
  const auto options = value.options().dtype(at::kLong);
  if (self.dim() == 0 || self.sym_numel() == 0) {
    return wrap(at::full_symint({level.batch_size, size, self.dim()}, fill_value, options), 0,
                level);
  }
  const auto counts = value.flatten(1).ne(0);
  const auto place = counts.cumsum(1).sub_(1);
  const auto slot = at::where(counts.logical_and(place.lt(size)), place, size);
  const auto number = at::arange(slot.sym_size(1), options).expand_symint(slot.sym_sizes());
  auto found = at::full_symint({level.batch_size, size + 1}, -1, options)
                   .scatter(1, slot, number)
                   .narrow_symint(1, 0, size);
  const auto missing = found.lt(0);
  std::vector<at::Tensor> coordinates(self.dim());
  for (auto dim = self.dim() - 1; dim >= 0; --dim) {
    const auto along = self.sym_size(dim);
    coordinates[dim] = at::where(missing, fill_value, found.remainder(along));
    found = at::floor_divide(found, along);
  }
  return wrap(at::stack(coordinates, -1), 0, level);
}

// repeats of (2, 0, 1) are the indices (0, 0, 2).
at::Tensor repeat_interleave_rule(Level& level, const at::Tensor& repeats,
                                  std::optional<c10::SymInt> output_size) {
  TORCH_CHECK(repeats.dim() == 1 && holds_for_all(repeats.ge(0)),
              "repeat_interleave: repeats must be a vector of numbers that aren't negative");
  const auto ends = at_front(repeats, level).cumsum(1);
  const auto total =
      ends.sym_size(1) == 0 ? ends.new_zeros_symint({level.batch_size}) : ends.select(1, -1);
  if (output_size) {
    TORCH_CHECK(holds_for_all(total.eq(*output_size)),
                "repeat_interleave: the repeats of a sample don't add up to output_size");
  } else {
    const auto agreed = agreed_value(wrap(total, 0, level));
    TORCH_CHECK(
        agreed || level.batch_size == 0,
        "functorch_ext.vmap: the shape of the result of aten::repeat_interleave depends on "
        "the data: the repeats of the samples don't add up to the same number. Use a number "
        "for repeats, or repeats that all samples share.");
    output_size = agreed ? c10::SymInt(agreed->item<int64_t>()) : c10::SymInt(0);
  }
  const auto places = at::arange(*output_size, ends.options())
                          .expand_symint({level.batch_size, *output_size})
                          .contiguous();
  const auto found = at::searchsorted(ends, places, repeats.scalar_type() == at::kInt,
                                      /*right=*/true);
  return wrap(found, 0, level);
}

void check_classes(const at::Tensor& classes, int64_t count) {
  TORCH_CHECK(holds_for_all(classes.ge(0)), "Class values must be non-negative.");
  TORCH_CHECK(count <= 0 || holds_for_all(classes.lt(count)),
              "Class values must be smaller than num_classes.");
}

// Classes are counted over all samples.
at::Tensor one_hot_rule(Level& level, const at::Tensor& self, int64_t num_classes) {
  TORCH_CHECK(self.scalar_type() == at::kLong,
              "one_hot is only applicable to index tensor of type LongTensor.");
  TORCH_CHECK(num_classes == -1 || num_classes > 0,
              "num_classes should be positive, or -1 for one more than the largest class");
  if (num_classes == -1 && level.batch_size != 0) {
    TORCH_CHECK(self.sym_numel() > 0, "Can not infer total number of classes from empty tensor.");
    const auto agreed = agreed_value(self.amax() + 1);
    TORCH_CHECK(agreed,
                "functorch_ext.vmap: the shape of the result of aten::one_hot depends on the data: "
                "the largest class differs between samples. Give num_classes.");
    num_classes = agreed->item<int64_t>();
  }
  const auto classes = at::arange(std::max<int64_t>(num_classes, 0), self.options());
  return self.unsqueeze(-1).eq(classes).to(at::kLong);
}

// PyTorch's own leaves its checks out for tensors whose keys say Meta, as those of wrappers do.
template <class Signature>
class OneHot final : public c10::OperatorKernel {
 public:
  OneHot(const Operator<Signature>& op, bool entry) : kernel_(op, entry) {}

  at::Tensor operator()(c10::DispatchKeySet keys, const at::Tensor& self,
                        int64_t num_classes) const {
    if (self.scalar_type() == at::kLong) {
      check_classes(self, num_classes);
    }
    return kernel_(keys, self, num_classes);
  }

 private:
  const Kernel<Signature> kernel_;
};

// A view where the samples agree on the start, else a selection.
std::optional<at::Tensor> narrow_at(Level&, const at::Tensor& self, int64_t dim,
                                    const at::Tensor& start, c10::SymInt length) {
  TORCH_CHECK(start.dim() == 0 && at::isIntegralType(start.scalar_type(), false),
              "start must be an 0-dim integral Tensor.");
  TORCH_CHECK(self.dim() > 0, "narrow() cannot be applied to a 0-dim tensor.");
  if (!is_wrapper(start)) {
    return std::nullopt;
  }
  if (const auto agreed = agreed_value(start)) {
    return at::narrow_symint(self, dim, agreed->item<int64_t>(), length);
  }
  const auto size = self.sym_size(dim);
  const auto first = at::where(start.lt(0), start + size, start);
  TORCH_CHECK(holds_for_all(first.ge(0).logical_and(first.le(size - length))),
              "narrow: start and length reach beyond dimension ", dim, ", which has size ", size);
  return at::index_select(self, dim, first + at::arange(length, start.options()));
}

std::optional<std::vector<at::Tensor>> tensor_split(Level&, const at::Tensor& self,
                                                    const at::Tensor& indices_or_sections,
                                                    int64_t dim) {
  if (!is_wrapper(indices_or_sections)) {
    return std::nullopt;
  }
  const auto agreed = agreed_value(indices_or_sections);
  TORCH_CHECK(agreed,
              "functorch_ext.vmap: the shapes of the results of aten::tensor_split depend on the "
              "data: on indices that differ between samples. Use indices that all samples share.");
  return at::tensor_split(self, *agreed, dim);
}

// The same ahead of autograd: inside forward mode of forward mode `self` is deeper than what
// differs between samples.
template <class Op, auto decomposition>
struct AtDeeperSelf;
template <class Op, class Return, class... Parameters,
          std::optional<Return> (*decomposition)(Level&, const at::Tensor&, Parameters...)>
struct AtDeeperSelf<Op, decomposition> {
  static Return kernel(c10::DispatchKeySet keys, const at::Tensor& self, Parameters... arguments) {
    if (is_wrapper(self) && wrapper_of(self)->level().stands_for_values()) {
      if (auto result = decomposition(wrapper_of(self)->level(), self, arguments...)) {
        return std::move(*result);
      }
    }
    return Op::redispatch(below_derivatives(keys), self, std::forward<Parameters>(arguments)...);
  }
};

template <class Op, auto decomposition>
void add_decomposed_at() {
  add_decomposition<Op>(decomposition);
  add_derivative_kernel<Op>(&AtDeeperSelf<Op, decomposition>::kernel);
}

// Each sample is asserted.
template <class... Message>
void assert_rule(Level& level, const at::Tensor& self, Message... message) {
  TORCH_CHECK(self.sym_numel() == 1, "_assert_async: expected one number, got ", self.sym_numel());
  at::_assert_async(value_of(self, level).ne(0).all(), message...);
}

// Operators whose result has a shape that depends on the data: samples would not fit together.
template <class Signature>
struct DataDependent;

template <class Return, class... Parameters>
struct DataDependent<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level&, Parameters...) {
    TORCH_CHECK(false, "functorch_ext.vmap: the shape of the result of ", op.handle.operator_name(),
                " depends on the data, so it may differ between samples. Use an operation whose "
                "result has a static shape (torch.where instead of a mask, for example).");
  }
};

}  // namespace

void register_selection_rules() {
  add<at::_ops::masked_select>(masked_select_rule);
  add<at::_ops::nonzero_static>(nonzero_static_rule);
  add<at::_ops::repeat_interleave_Tensor>(repeat_interleave_rule);
  add<at::_ops::one_hot, OneHot>(one_hot_rule);
  add_decomposed_at<at::_ops::narrow_Tensor, narrow_at>();
  add_decomposed_at<at::_ops::tensor_split_tensor_indices_or_sections,
                    functorch_ext::tensor_split>();

  add<at::_ops::_assert_async>(assert_rule<>);
  add<at::_ops::_assert_async_msg>(assert_rule<c10::string_view>);

  add<at::_ops::_unique, DataDependent>();
  add<at::_ops::_unique2, DataDependent>();
  add<at::_ops::unique_dim, DataDependent>();
  add<at::_ops::unique_consecutive, DataDependent>();
  add<at::_ops::unique_dim_consecutive, DataDependent>();
  add<at::_ops::nonzero, DataDependent>();
}

}  // namespace functorch_ext
