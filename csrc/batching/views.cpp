// Operators whose result shares memory with their argument.
#include <ATen/InferSize.h>
#include <ATen/TensorUtils.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/extent.h"

namespace functorch_ext {

namespace {

// A view of all of the value keeps its batch dimension where it is.
template <class Op>
at::Tensor whole_rule(Level& level, const at::Tensor& self) {
  const auto* wrapper = wrapper_at(self, level);
  return wrap(Op::call(wrapper->value()), wrapper->bdim(), level);
}

at::Tensor fw_primal_rule(Level& level, const at::Tensor& self, int64_t) {
  return whole_rule<at::_ops::alias>(level, self);
}

// Without samples, a size of -1 is what it is for a sample: for all of them any size would do.
std::vector<c10::SymInt> viewed_sizes(const at::Tensor& self, at::SymIntArrayRef size,
                                      const Level& level) {
  if (C10_LIKELY(level.batch_size.maybe_as_int() != 0)) {
    return physical_sizes(size, level);
  }
  return physical_sizes(at::infer_size_dv(size, self.sym_numel()), level);
}

// The value with samples in front, laid out as those of a loop would be, if nothing shares its
// memory. An operator leaves the samples where they are in memory, possibly between each other's
// elements. A view takes what they would be each by itself.
//
// It stays what planes below differentiate, whether or not the program records what it does with
// the view. In inference mode it couldn't.
at::Tensor as_samples_in_front(const at::Tensor& self, const Level& level) {
  auto* wrapper = wrapper_at(self, level);
  if (wrapper && wrapper->is_fresh() && !c10::InferenceMode::is_enabled()) {
    const c10::AutoGradMode reverse(true);
    const c10::AutoFwGradMode forward(true);
    wrapper->set_value(at_front(self, level).contiguous(), 0);
  }
  return at_front(self, level);
}

bool can_be_viewed(const at::Tensor& value, at::SymIntArrayRef sizes) {
  return value.is_contiguous() || value.unsafeGetTensorImpl()->has_symbolic_sizes_strides() ||
         at::detail::computeStride(
             value.sizes(), value.strides(),
             at::infer_size_dv(C10_AS_INTARRAYREF_SLOW(sizes), value.numel()));
}

at::Tensor view_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef size) {
  const auto sizes = viewed_sizes(self, size, level);
  auto value = at_front(self, level);
  if (C10_UNLIKELY(!can_be_viewed(value, sizes))) {
    value = as_samples_in_front(self, level);
  }
  return wrap(value.view_symint(sizes), 0, level);
}

// PyTorch calls this once it knows that a view is possible; the strides follow from that.
at::Tensor reshape_alias_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef size,
                              at::SymIntArrayRef) {
  return view_rule(level, self, size);
}

at::Tensor unsafe_view_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef size) {
  return wrap(at_front(self, level).reshape_symint(viewed_sizes(self, size, level)), 0, level);
}

at::Tensor view_dtype_rule(Level& level, const at::Tensor& self, at::ScalarType dtype) {
  TORCH_CHECK(
      self.dim() > 0 || self.dtype().itemsize() == c10::elementSize(dtype),
      "functorch_ext.vmap: view of a tensor without dimensions as a dtype of another size.");
  const bool smaller = c10::elementSize(dtype) < self.dtype().itemsize();
  const bool takes_steps =
      c10::elementSize(dtype) == self.dtype().itemsize() || (smaller && self.sym_stride(-1) == 1);
  const auto value = takes_steps ? at_front(self, level) : as_samples_in_front(self, level);
  return wrap(value.view(dtype), 0, level);
}

at::Tensor expand_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef size,
                       bool implicit) {
  const auto rank = static_cast<int64_t>(size.size());
  TORCH_CHECK(rank >= self.dim(), "functorch_ext.vmap: expand of a tensor of shape ",
              self.sym_sizes(), " to fewer dimensions: ", size, ".");
  const auto value = aligned(self, rank, level);
  return wrap(value.expand_symint(physical_sizes(size, level), implicit), 0, level);
}

at::Tensor permute_rule(Level& level, const at::Tensor& self, at::IntArrayRef dims) {
  auto physical = physical_dims(dims, self.dim());
  physical.insert(physical.begin(), 0);
  return wrap(at_front(self, level).permute(physical), 0, level);
}

at::Tensor transpose_last_rule(Level& level, const at::Tensor& self) {
  TORCH_CHECK(self.dim() <= 2, "t() expects a tensor with <= 2 dimensions, but self is ",
              self.dim(), "D");
  return self.dim() == 2 ? wrap(at_front(self, level).transpose(1, 2), 0, level)
                         : whole_rule<at::_ops::alias>(level, self);
}

at::Tensor transpose_rule(Level& level, const at::Tensor& self, int64_t dim0, int64_t dim1) {
  const auto rank = self.dim();
  if (rank == 0) {
    return whole_rule<at::_ops::alias>(level, self);
  }
  return wrap(at_front(self, level).transpose(physical_dim(dim0, rank), physical_dim(dim1, rank)),
              0, level);
}

at::Tensor unsqueeze_rule(Level& level, const at::Tensor& self, int64_t dim) {
  return wrap(at_front(self, level).unsqueeze(physical_dim(dim, self.dim() + 1)), 0, level);
}

at::Tensor squeeze_dims_rule(Level& level, const at::Tensor& self, at::IntArrayRef dims) {
  if (self.dim() == 0) {
    return whole_rule<at::_ops::alias>(level, self);
  }
  return wrap(at_front(self, level).squeeze(physical_dims(dims, self.dim())), 0, level);
}

at::Tensor squeeze_dim_rule(Level& level, const at::Tensor& self, int64_t dim) {
  return squeeze_dims_rule(level, self, dim);
}

at::Tensor squeeze_rule(Level& level, const at::Tensor& self) {
  std::vector<int64_t> dims;
  for (int64_t dim = 0; dim < self.dim(); ++dim) {
    if (self.sym_size(dim) == 1) {
      dims.push_back(dim);
    }
  }
  return dims.empty() ? whole_rule<at::_ops::alias>(level, self)
                      : squeeze_dims_rule(level, self, dims);
}

// Calls visit() with the distance of each element from the first.
template <class Visit>
void for_each_distance(at::SymIntArrayRef size, at::SymIntArrayRef stride, const Visit& visit,
                       int64_t distance = 0) {
  if (size.empty()) {
    visit(distance);
    return;
  }
  const auto step = stride[0].guard_int(__FILE__, __LINE__);
  for (auto left = size[0].guard_int(__FILE__, __LINE__); left > 0; --left, distance += step) {
    for_each_distance(size.slice(1), stride.slice(1), visit, distance);
  }
}

// Is each element of the view one of `self`'s? Elements of other samples may lie between them.
bool is_among_own(const at::Tensor& self, at::SymIntArrayRef size, at::SymIntArrayRef stride,
                  const c10::SymInt& offset, const c10::SymInt& extent) {
  std::vector<bool> own(extent.guard_int(__FILE__, __LINE__) + 1);
  for_each_distance(self.sym_sizes(), self.sym_strides(),
                    [&](int64_t place) { own[place] = true; });
  const auto start = (offset - self.sym_storage_offset()).guard_int(__FILE__, __LINE__);
  bool all = true;
  for_each_distance(size, stride, [&](int64_t place) { all = all && own[start + place]; });
  return all;
}

// What a sample views must lie where its own elements do, not among those of the next one.
void check_in_sample(const at::Tensor& self, at::SymIntArrayRef size, at::SymIntArrayRef stride,
                     const c10::SymInt& offset, const c10::SymInt& between_samples) {
  if (c10::multiply_integers(size) == 0 || self.sym_numel() == 0 || between_samples == 0) {
    return;
  }
  const auto first = self.sym_storage_offset();
  const auto last = first + distance_to_last(self.sym_sizes(), self.sym_strides());
  const auto end = offset + distance_to_last(size, stride);
  const bool inside = first <= offset && end <= last;
  const bool in_own_memory = last.max(end) - first.min(offset) < between_samples;
  TORCH_CHECK(in_own_memory || (inside && is_among_own(self, size, stride, offset, last - first)),
              "as_strided: size ", size, ", stride ", stride, " and offset ", offset,
              " reach beyond one sample, whose elements are at ", first, " to ", last);
}

// Strides and offset are those of one sample, as the tensor reports them.
at::Tensor as_strided_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef size,
                           at::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  const auto value = at_front(self, level);
  if (!value.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    check_in_sample(self, size, stride, offset.value_or(self.sym_storage_offset()),
                    value.sym_stride(0));
  }
  std::vector<c10::SymInt> strides{value.sym_stride(0)};
  strides.insert(strides.end(), stride.begin(), stride.end());
  return wrap(value.as_strided_symint(physical_sizes(size, level), strides, std::move(offset)), 0,
              level);
}

// Of a number, one window: it has no dimension to slide along.
at::Tensor unfold_rule(Level& level, const at::Tensor& self, int64_t dim, int64_t size,
                       int64_t step) {
  const auto value = at_front(self, level);
  if (self.dim() == 0) {
    return wrap(value.unsqueeze(1).unfold(physical_dim(dim, 1), size, step).squeeze(1), 0, level);
  }
  return wrap(value.unfold(physical_dim(dim, self.dim()), size, step), 0, level);
}

at::Tensor view_as_real_rule(Level& level, const at::Tensor& self) {
  return wrap(at::view_as_real(at_front(self, level)), 0, level);
}

at::Tensor view_as_complex_rule(Level& level, const at::Tensor& self) {
  TORCH_CHECK(self.dim() > 0, "Input tensor must have one or more dimensions");
  const bool takes_steps = self.sym_stride(-1) == 1;
  const auto value = takes_steps ? at_front(self, level) : as_samples_in_front(self, level);
  return wrap(at::view_as_complex(value), 0, level);
}

// A number has no dimension to take a part of.
template <class Signature>
struct PartOf;
template <class Return, class... Parameters>
struct PartOf<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    TORCH_CHECK_INDEX(first_tensor(arguments...).dim() > 0, op.handle.operator_name(),
                      ": expected a tensor with at least one dimension, but got one without");
    return AlongDims<Return(Parameters...)>::rule(op, level,
                                                  std::forward<Parameters>(arguments)...);
  }
};

// The in-place form of a view: the wrapper stands for the view from now on.
template <auto rule>
struct InPlace;
template <class... Parameters, at::Tensor (*rule)(Level&, const at::Tensor&, Parameters...)>
struct InPlace<rule> {
  static at::Tensor& apply(Level& level, at::Tensor& self, Parameters... arguments) {
    const auto view = rule(level, self, std::forward<Parameters>(arguments)...);
    const auto* wrapper = wrapper_of(view);
    wrapper_of(self)->set_value(wrapper->value(), wrapper->bdim());
    return self;
  }
};

const at::Tensor& as_strided_in_place_rule(Level& level, const at::Tensor& self,
                                           at::SymIntArrayRef size, at::SymIntArrayRef stride,
                                           std::optional<c10::SymInt> offset) {
  const auto view = as_strided_rule(level, self, size, stride, std::move(offset));
  wrapper_of(self)->set_value(wrapper_of(view)->value(), 0);
  return self;
}

}  // namespace

void register_views_rules() {
  using namespace at::_ops;
  // The whole of it.
  add<alias>(whole_rule<alias>);
  add<detach>(whole_rule<detach>);
  add<detach_>(InPlace<&whole_rule<detach>>::apply);
  add<lift>(whole_rule<lift>);
  add<lift_fresh>(whole_rule<lift_fresh>);
  add<_conj>(whole_rule<_conj>);
  add<_neg_view>(whole_rule<_neg_view>);
  add<_fw_primal>(fw_primal_rule).unchecked();  // plain PyTorch has no kernel below autograd
  add<at::_ops::view_as_real>(view_as_real_rule);
  add<at::_ops::view_as_complex>(view_as_complex_rule).unchecked();

  // Another shape. Where the samples lie between each other, plain PyTorch would refuse one.
  add<at::_ops::view>(view_rule).unchecked();
  add<at::_ops::view_dtype>(view_dtype_rule).unchecked();
  add<_reshape_alias>(reshape_alias_rule);
  add<_unsafe_view>(unsafe_view_rule);
  add<at::_ops::expand>(expand_rule);
  add<at::_ops::unsqueeze>(unsqueeze_rule);
  add<unsqueeze_>(InPlace<&unsqueeze_rule>::apply);
  add<at::_ops::squeeze>(squeeze_rule);
  add<at::_ops::squeeze_dim>(squeeze_dim_rule);
  add<at::_ops::squeeze_dims>(squeeze_dims_rule);
  add<squeeze_>(InPlace<&squeeze_rule>::apply);
  add<squeeze__dim>(InPlace<&squeeze_dim_rule>::apply);
  add<squeeze__dims>(InPlace<&squeeze_dims_rule>::apply);

  // Another order.
  add<t>(transpose_last_rule);
  add<t_>(InPlace<&transpose_last_rule>::apply);
  add<transpose_int>(transpose_rule);
  add<transpose_>(InPlace<&transpose_rule>::apply);
  add<at::_ops::permute>(permute_rule);

  // A part.
  add<select_int, PartOf>({"dim"});
  add<slice_Tensor, PartOf>({"dim"});
  add<diagonal, AlongDims>({"dim1", "dim2"});
  add<at::_ops::unfold>(unfold_rule);
  add<split_Tensor, PartOf>({"dim"});
  add<split_with_sizes, PartOf>({"dim"});
  add<unsafe_split_Tensor, PartOf>({"dim"});
  add<unsafe_split_with_sizes, PartOf>({"dim"});
  add<unbind_int, PartOf>({"dim"});
  add<at::_ops::as_strided>(as_strided_rule).unchecked();
  add<as_strided_>(as_strided_in_place_rule).unchecked();

  // Composites that are called all the time.
  add_decomposition<reshape>();
  add_decomposition<flatten_using_ints>();
  add_decomposition<view_as>();
  add_decomposition<expand_as>();
  add_decomposition<broadcast_tensors>();
  add_decomposition<contiguous>();
  add_decomposition<movedim_intlist>();
  add_decomposition<movedim_int>();
  add_decomposition<narrow>();
  add_decomposition<chunk>();
  add_decomposition<numpy_T>();
  add_decomposition<mT>();
}

}  // namespace functorch_ext
