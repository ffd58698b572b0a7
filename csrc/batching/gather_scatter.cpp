// Reading and writing along one dimension at the places that an index or a mask says.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"

#include <c10/core/WrapDimMinimal.h>

namespace functorch_ext {

namespace {

// These operators take a number for a tensor with one element: here it gets a dimension for it.
at::Tensor vectors_at_least(const at::Tensor& samples) {
  return samples.dim() == 1 ? samples.unsqueeze(1) : samples;
}
at::Tensor with_dimension(const at::Tensor& tensor, const Level& level) {
  return vectors_at_least(expanded_at_front(tensor, level));
}
at::Tensor to_change(const at::Tensor& self, const Level& level) {
  return vectors_at_least(expanded_to_change(self, level));
}

int64_t physical_dim_of(int64_t dim, const at::Tensor& self) {
  return physical_dim(dim, std::max<int64_t>(self.dim(), 1));
}

// What a rule gives back: the new tensor of the shape of `like`, or in place `self`.
at::Tensor finish(const at::Tensor& like, const at::Tensor& result, const Level& level) {
  return wrap(like.dim() == 0 ? result.squeeze(1) : result, 0, level);
}
at::Tensor& finish(at::Tensor& self, const at::Tensor&, const Level&) {
  return self;
}

template <class Self>
using ResultFor = std::conditional_t<std::is_same_v<Self, at::Tensor&>, at::Tensor&, at::Tensor>;

// scatter and its kin, whose index has the rank of self.
template <class Signature>
struct Scatter;

template <class Return, class Self, class... Rest>
struct Scatter<Return(Self, int64_t, Rest...)> {
  using Signature = Return(Self, int64_t, Rest...);
  static Return rule(const Operator<Signature>& op, Level& level, Self self, int64_t dim,
                     Rest... rest) {
    const auto rewritten = [&](const at::Tensor& tensor) {
      return &tensor == &self ? to_change(tensor, level) : with_dimension(tensor, level);
    };
    const auto result = call_rewritten<at::Tensor, Self, int64_t, Rest...>(
        op.call, rewritten, self, physical_dim_of(dim, self), std::forward<Rest>(rest)...);
    return finish(self, result, level);
  }
};

at::Tensor gather_rule(Level& level, const at::Tensor& self, int64_t dim, const at::Tensor& index,
                       bool sparse_grad) {
  const auto result = at::gather(with_dimension(self, level), physical_dim_of(dim, self),
                                 with_dimension(index, level), false);
  return finish(index, result, level);
}

// Spread out, indices are arguments of gather and scatter, which would take lists and sources of
// other lengths, too: what PyTorch checks of one sample is checked here.
void check_list(const at::Tensor& index) {
  TORCH_CHECK_INDEX(index.dim() <= 1, "expected a vector of indices, but got the shape ",
                    index.sym_sizes());
}

void check_source(const char* name, const at::Tensor& self, int64_t dim, const at::Tensor& index,
                  const at::Tensor& source) {
  check_list(index);
  const auto sizes_of = [](const at::Tensor& tensor) {
    return tensor.dim() == 0 ? std::vector<c10::SymInt>{1} : tensor.sym_sizes().vec();
  };
  auto sizes = sizes_of(self);
  sizes[c10::maybe_wrap_dim(dim, static_cast<int64_t>(sizes.size()))] = index.sym_numel();
  TORCH_CHECK_INDEX(sizes_of(source) == sizes, name, ": for ", index.sym_numel(),
                    " indices along dimension ", dim, " of a tensor of shape ", self.sym_sizes(),
                    ", expected a source of shape ", c10::SymIntArrayRef(sizes),
                    ", but got one of shape ", source.sym_sizes());
}

// A list of indices along `dim` as an index of the rank of a value, for gather and scatter; other
// dimensions are those of the value.
at::Tensor spread(const at::Tensor& index, const at::Tensor& value, int64_t dim,
                  const Level& level) {
  auto spread = with_dimension(index, level).to(at::kLong);
  auto sizes = value.sym_sizes().vec();
  sizes[dim] = spread.sym_size(1);
  for (int64_t each = 1; each < dim; ++each) {
    spread = spread.unsqueeze(1);
  }
  while (spread.dim() < value.dim()) {
    spread = spread.unsqueeze(-1);
  }
  return spread.expand_symint(sizes);
}

at::Tensor index_select_rule(Level& level, const at::Tensor& self, int64_t dim,
                             const at::Tensor& index) {
  check_list(index);
  TORCH_CHECK_INDEX(self.dim() > 0 || index.sym_numel() == 1,
                    "index_select: a tensor without dimensions has one element, but got ",
                    index.sym_numel(), " indices");
  const auto physical = physical_dim_of(dim, self);
  if (!is_batched_at(index, level)) {
    const auto value = with_dimension(self, level);
    return finish(self, at::index_select(value, physical, value_of(index, level)), level);
  }
  if (is_batched_at(self, level)) {
    const auto value = with_dimension(self, level);
    return finish(self, at::gather(value, physical, spread(index, value, physical, level)), level);
  }
  // One selection for all samples.
  auto value = value_of(self, level);
  value = self.dim() == 0 ? value.unsqueeze(0) : value;
  const auto indices = with_dimension(index, level);
  const auto found = at::index_select(value, physical - 1, indices.flatten());
  const auto sizes = indices.sym_sizes();
  const auto samples = found.unflatten_symint(physical - 1, sizes).movedim(physical - 1, 0);
  return finish(self, samples, level);
}

template <class Op, class ScatterOp, class Self>
ResultFor<Self> index_add_rule(Level& level, Self self, int64_t dim, const at::Tensor& index,
                               const at::Tensor& source, const at::Scalar& alpha) {
  const auto physical = physical_dim_of(dim, self);
  auto value = to_change(self, level);
  const auto added = with_dimension(source, level);
  if (!is_batched_at(index, level)) {
    return finish(self, Op::call(value, physical, value_of(index, level), added, alpha), level);
  }
  check_source(Op::name, self, dim, index, source);
  const auto places = spread(index, added, physical, level);
  const auto scaled = alpha.equal(1) ? added : at::mul(added, alpha);
  return finish(self, ScatterOp::call(value, physical, places, scaled), level);
}

template <class Op, class ScatterOp, class Self>
ResultFor<Self> index_copy_rule(Level& level, Self self, int64_t dim, const at::Tensor& index,
                                const at::Tensor& source) {
  const auto physical = physical_dim_of(dim, self);
  auto value = to_change(self, level);
  const auto copied = with_dimension(source, level);
  if (!is_batched_at(index, level)) {
    return finish(self, Op::call(value, physical, value_of(index, level), copied), level);
  }
  check_source(Op::name, self, dim, index, source);
  const auto places = spread(index, copied, physical, level);
  return finish(self, ScatterOp::call(value, physical, places, copied), level);
}

template <class Op, class ScatterOp, class Self>
ResultFor<Self> index_reduce_rule(Level& level, Self self, int64_t dim, const at::Tensor& index,
                                  const at::Tensor& source, c10::string_view reduce,
                                  bool include_self) {
  const auto physical = physical_dim_of(dim, self);
  auto value = to_change(self, level);
  const auto reduced = with_dimension(source, level);
  if (!is_batched_at(index, level)) {
    return finish(self,
                  Op::call(value, physical, value_of(index, level), reduced, reduce, include_self),
                  level);
  }
  check_source(Op::name, self, dim, index, source);
  const auto places = spread(index, reduced, physical, level);
  return finish(self, ScatterOp::call(value, physical, places, reduced, reduce, include_self),
                level);
}

// index_fill alone takes indices that count from the end.
at::Tensor from_front(const at::Tensor& index, const c10::SymInt& size) {
  const auto places = index.to(at::kLong);
  return at::where(places.lt(0), places + size, places);
}

template <class Op, class ScatterOp, class Self>
ResultFor<Self> index_fill_rule(Level& level, Self self, int64_t dim, const at::Tensor& index,
                                const at::Scalar& number) {
  const auto physical = physical_dim_of(dim, self);
  auto value = to_change(self, level);
  if (!is_batched_at(index, level)) {
    return finish(self, Op::call(value, physical, value_of(index, level), number), level);
  }
  check_list(index);
  const auto places = spread(from_front(index, value.sym_size(physical)), value, physical, level);
  return finish(self, ScatterOp::call(value, physical, places, number), level);
}

template <class Op, class Self>
ResultFor<Self> index_fill_tensor_rule(Level& level, Self self, int64_t dim,
                                       const at::Tensor& index, const at::Tensor& number) {
  TORCH_CHECK(number.dim() == 0, "index_fill: the value must have no dimensions, got ",
              number.dim());
  check_list(index);
  const auto physical = physical_dim_of(dim, self);
  auto value = to_change(self, level);
  if (!is_batched_at(index, level) && !is_batched_at(number, level)) {
    return finish(self, Op::call(value, physical, value_of(index, level), value_of(number, level)),
                  level);
  }
  check_fits(number, value.scalar_type());
  // By a mask: where an index comes twice, the number still has one gradient.
  auto mask = value_of(index, level)
                  .new_zeros_symint({level.batch_size, value.sym_size(physical)}, at::kBool);
  const auto places = from_front(index, value.sym_size(physical));
  mask = mask.scatter(1, with_dimension(places, level), true);
  std::vector<c10::SymInt> shape(value.dim(), 1);
  shape[0] = level.batch_size;
  shape[physical] = value.sym_size(physical);
  const auto written = aligned(number, value.dim() - 1, level).to(value.scalar_type());
  const auto filled = at::where(mask.reshape_symint(shape), written, value);
  if constexpr (std::is_same_v<Self, at::Tensor&>) {
    value.copy_(filled);
  }
  return finish(self, filled, level);
}

// The derivatives of index_fill look for the different ones among the indices; by a mask there is
// nothing to look for.
std::optional<at::Tensor> fill_by_mask(Level& level, const at::Tensor& self, int64_t dim,
                                       const at::Tensor& index, const at::Tensor& number) {
  if (!is_batched_at(index, level)) {
    return std::nullopt;
  }
  check_list(index);
  check_fits(number, self.scalar_type());
  const auto size = self.dim() == 0 ? c10::SymInt(1) : self.sym_size(dim);
  auto mask = index.new_zeros_symint({size}, at::kBool)
                  .scatter(0, from_front(index, size).reshape({-1}), true);
  if (self.dim() == 0) {
    mask = mask.reshape({});
  } else {
    for (auto behind = self.dim() - c10::maybe_wrap_dim(dim, self.dim()) - 1; behind > 0;
         --behind) {
      mask = mask.unsqueeze(-1);
    }
  }
  return at::where(mask, number.to(self.scalar_type()), self);
}

std::optional<at::Tensor> fill_by_mask_in_place(Level& level, at::Tensor& self, int64_t dim,
                                                const at::Tensor& index, const at::Tensor& number) {
  if (const auto filled = fill_by_mask(level, self, dim, index, number)) {
    self.copy_(*filled);
    return self;
  }
  return std::nullopt;
}

// masked_fill takes a number alone; one that differs between samples is a where.
at::Tensor masked_fill_rule(const Operator<at::_ops::masked_fill_Tensor::schema>& op, Level& level,
                            const at::Tensor& self, const at::Tensor& mask,
                            const at::Tensor& number) {
  if (!is_batched_at(number, level)) {
    return Pointwise<at::_ops::masked_fill_Tensor::schema>::rule(op, level, self, mask, number);
  }
  TORCH_CHECK(number.dim() == 0, "masked_fill: the value must have no dimensions, got ",
              number.dim());
  check_fits(number, self.scalar_type());
  const auto rank = largest_rank(self, mask);
  return wrap(
      at::where(aligned(mask, rank, level), aligned(number, rank, level).to(self.scalar_type()),
                aligned(self, rank, level)),
      0, level);
}

// Of an expanded tensor, whose elements share places in memory, one element for each place; the
// mask is true there if it is true for any of them.
std::pair<at::Tensor, at::Tensor> one_for_each_place(at::Tensor self, at::Tensor mask) {
  const auto rank = self.dim();
  for (int64_t dim = 0; dim < rank; ++dim) {
    if (self.sym_stride(dim) == 0 && self.sym_size(dim) > 1) {
      self = self.narrow(dim, 0, 1);
      if (const auto of_mask = dim - rank + mask.dim(); of_mask >= 0) {
        mask = mask.any(of_mask, /*keepdim=*/true);
      }
    }
  }
  return {self, mask};
}

at::Tensor& masked_fill_in_place_rule(const Operator<at::_ops::masked_fill__Tensor::schema>& op,
                                      Level& level, at::Tensor& self, const at::Tensor& mask,
                                      const at::Tensor& number) {
  if (!is_batched_at(number, level)) {
    return Pointwise<at::_ops::masked_fill__Tensor::schema>::rule(op, level, self, mask, number);
  }
  const auto [places, where] = one_for_each_place(self, mask);
  const auto filled = at::masked_fill(places, where, number);
  at_front(places, level).copy_(aligned(filled, self.dim(), level));
  return self;
}

// The numbers of a sample in a row, and for each the place that it has among those under the mask.
at::Tensor row(const at::Tensor& tensor, const Level& level) {
  const auto value = with_dimension(tensor, level);
  return value.dim() == 2 ? value : value.flatten(1);
}

at::Tensor places_in_source(const at::Tensor& mask) {
  return mask.cumsum(1).sub(1).clamp_min(0);
}

at::Tensor masked_scatter_rule(Level& level, const at::Tensor& self, const at::Tensor& mask,
                               const at::Tensor& source) {
  if (source.sym_numel() == 0) {
    TORCH_CHECK(holds_for_all(mask.to(at::kBool).logical_not()),
                "masked_scatter: the source is empty, but the mask is true somewhere");
    return at::broadcast_tensors({self, mask})[0].clone();
  }
  const auto both = at::broadcast_tensors({self, mask});
  const auto where = row(both[1], level).to(at::kBool);
  const auto found = row(source, level).gather(1, places_in_source(where));
  const auto result = at::where(where, found, row(both[0], level));
  return wrap(result.reshape_symint(physical_sizes(both[0].sym_sizes(), level)), 0, level);
}

at::Tensor& masked_scatter_in_place_rule(Level& level, at::Tensor& self, const at::Tensor& mask,
                                         const at::Tensor& source) {
  const auto scattered = masked_scatter_rule(level, self, mask, source);
  at_front(self, level).copy_(at_front(scattered, level));
  return self;
}

at::Tensor masked_scatter_backward_rule(Level& level, const at::Tensor& grad_output,
                                        const at::Tensor& mask, c10::SymIntArrayRef sizes) {
  const auto both = at::broadcast_tensors({grad_output, mask});
  const auto where = row(both[1], level).to(at::kBool);
  const auto values = at::where(where, row(both[0], level), 0);
  c10::SymInt numel = 1;
  for (const auto& size : sizes) {
    numel *= size;
  }
  const auto shape = physical_sizes(sizes, level);
  if (numel == 0) {
    return wrap(values.new_zeros_symint(shape), 0, level);
  }
  const auto rows = values.new_zeros_symint({level.batch_size, numel});
  const auto result = rows.scatter_add(1, places_in_source(where), values);
  return wrap(result.reshape_symint(shape), 0, level);
}

}  // namespace

void register_gather_scatter_rules() {
  using at::Tensor;
  add<at::_ops::gather>(gather_rule);
  add<at::_ops::scatter_src, Scatter>();
  add<at::_ops::scatter_value, Scatter>();
  add<at::_ops::scatter_reduce, Scatter>();
  add<at::_ops::scatter_value_reduce, Scatter>();
  add<at::_ops::scatter_add, Scatter>();
  add<at::_ops::scatter_reduce_two, Scatter>();
  add<at::_ops::scatter__src, Scatter>();
  add<at::_ops::scatter__value, Scatter>();
  add<at::_ops::scatter__reduce, Scatter>();
  add<at::_ops::scatter__value_reduce, Scatter>();
  add<at::_ops::scatter_add_, Scatter>();
  add<at::_ops::scatter_reduce__two, Scatter>();

  // With a list of indices that differs between samples these are gather and scatter.
  add<at::_ops::index_select>(index_select_rule);
  add<at::_ops::index_add>(
      index_add_rule<at::_ops::index_add, at::_ops::scatter_add, const Tensor&>);
  add<at::_ops::index_add_>(index_add_rule<at::_ops::index_add_, at::_ops::scatter_add_, Tensor&>);
  add<at::_ops::index_copy>(
      index_copy_rule<at::_ops::index_copy, at::_ops::scatter_src, const Tensor&>);
  add<at::_ops::index_copy_>(
      index_copy_rule<at::_ops::index_copy_, at::_ops::scatter__src, Tensor&>);
  add<at::_ops::index_reduce>(
      index_reduce_rule<at::_ops::index_reduce, at::_ops::scatter_reduce_two, const Tensor&>);
  add<at::_ops::index_reduce_>(
      index_reduce_rule<at::_ops::index_reduce_, at::_ops::scatter_reduce__two, Tensor&>);
  add<at::_ops::index_fill_int_Scalar>(
      index_fill_rule<at::_ops::index_fill_int_Scalar, at::_ops::scatter_value, const Tensor&>);
  add<at::_ops::index_fill__int_Scalar>(
      index_fill_rule<at::_ops::index_fill__int_Scalar, at::_ops::scatter__value, Tensor&>);
  add<at::_ops::index_fill_int_Tensor>(
      index_fill_tensor_rule<at::_ops::index_fill_int_Tensor, const Tensor&>, fill_by_mask);
  add<at::_ops::index_fill__int_Tensor>(
      index_fill_tensor_rule<at::_ops::index_fill__int_Tensor, Tensor&>, fill_by_mask_in_place);

  add<at::_ops::masked_fill__Scalar, Pointwise>();
  add<at::_ops::masked_fill_Tensor>(masked_fill_rule);
  add<at::_ops::masked_fill__Tensor>(masked_fill_in_place_rule);
  add<at::_ops::masked_scatter>(masked_scatter_rule);
  add<at::_ops::masked_scatter_>(masked_scatter_in_place_rule);
  add<at::_ops::masked_scatter_backward>(masked_scatter_backward_rule);
}

}  // namespace functorch_ext
