// Reductions, over everything or along given dimensions.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// A reduction over everything, by the variant that takes one dimension: all of a sample's numbers
// in dimension 1.
at::Tensor flattened(const at::Tensor& self, const Level& level) {
  const auto value = at_front(self, level);
  return self.dim() == 0 ? value.unsqueeze(1) : value.flatten(1);
}

// The dimensions of a sample behind the samples. A batch of numbers has none, but reductions take
// an empty list for all dimensions: reduce over an extra one.
struct AllDims {
  AllDims(const at::Tensor& self, const Level& level) : value(at_front(self, level)) {
    if (self.dim() == 0) {
      value = value.unsqueeze(1);
    }
    for (int64_t dim = 1; dim < value.dim(); ++dim) {
      dims.push_back(dim);
    }
  }

  at::Tensor value;
  std::vector<int64_t> dims;
};

using OptionalDtype = std::optional<at::ScalarType>;

at::Tensor sum_rule(Level& level, const at::Tensor& self, OptionalDtype dtype) {
  const AllDims all(self, level);
  return wrap(at::sum(all.value, all.dims, false, dtype), 0, level);
}

at::Tensor mean_rule(Level& level, const at::Tensor& self, OptionalDtype dtype) {
  const AllDims all(self, level);
  return wrap(at::mean(all.value, all.dims, false, dtype), 0, level);
}

at::Tensor prod_rule(Level& level, const at::Tensor& self, OptionalDtype dtype) {
  return wrap(at::prod(flattened(self, level), 1, false, dtype), 0, level);
}

// amax and amin, like max and min over everything, spread the gradient over equal numbers.
at::Tensor max_rule(Level& level, const at::Tensor& self) {
  const AllDims all(self, level);
  return wrap(at::amax(all.value, all.dims), 0, level);
}

at::Tensor min_rule(Level& level, const at::Tensor& self) {
  const AllDims all(self, level);
  return wrap(at::amin(all.value, all.dims), 0, level);
}

std::tuple<at::Tensor, at::Tensor> aminmax_rule(Level& level, const at::Tensor& self) {
  return {min_rule(level, self), max_rule(level, self)};
}

at::Tensor median_rule(Level& level, const at::Tensor& self) {
  return wrap(std::get<0>(at::median(flattened(self, level), 1)), 0, level);
}

at::Tensor nanmedian_rule(Level& level, const at::Tensor& self) {
  return wrap(std::get<0>(at::nanmedian(flattened(self, level), 1)), 0, level);
}

at::Tensor all_rule(Level& level, const at::Tensor& self) {
  return wrap(at::all(flattened(self, level), 1), 0, level);
}

at::Tensor any_rule(Level& level, const at::Tensor& self) {
  return wrap(at::any(flattened(self, level), 1), 0, level);
}

at::Tensor norm_rule(Level& level, const at::Tensor& self, const at::Scalar& p) {
  const AllDims all(self, level);
  return wrap(at::norm(all.value, p, all.dims, false), 0, level);
}

at::Tensor norm_dtype_rule(Level& level, const at::Tensor& self, const std::optional<at::Scalar>& p,
                           at::ScalarType dtype) {
  const AllDims all(self, level);
  return wrap(at::norm(all.value, p, all.dims, false, dtype), 0, level);
}

at::Tensor dist_rule(Level& level, const at::Tensor& self, const at::Tensor& other,
                     const at::Scalar& p) {
  const auto rank = std::max<int64_t>(largest_rank(self, other), 1);
  const auto difference = at::sub(aligned(self, rank, level), aligned(other, rank, level));
  return wrap(at::norm(difference.flatten(1), p, at::IntArrayRef{1}, false), 0, level);
}

at::Tensor trace_rule(Level& level, const at::Tensor& self) {
  TORCH_CHECK(self.dim() == 2, "trace: expected a matrix");
  return wrap(at_front(self, level).diagonal(0, 1, 2).sum(1), 0, level);
}

// These two take an empty list for no dimensions at all.
template <class Op>
at::Tensor truth_rule(Level& level, const at::Tensor& self, at::OptionalIntArrayRef dim,
                      bool keepdim) {
  if (dim && dim->empty()) {
    const auto dtype = self.scalar_type() == at::kByte ? at::kByte : at::kBool;
    return wrap(at_front(self, level).to(dtype, false, true), 0, level);
  }
  AllDims all(self, level);
  if (dim) {
    all.dims = physical_dims(*dim, all.value.dim() - 1);
  }
  const auto result = Op::call(all.value, all.dims, keepdim);
  return wrap(self.dim() == 0 && keepdim ? result.squeeze(1) : result, 0, level);
}

// Each slice of each sample is a row of a matrix.
at::Tensor renorm_rule(Level& level, const at::Tensor& self, const at::Scalar& p, int64_t dim,
                       const at::Scalar& maxnorm) {
  TORCH_CHECK(self.dim() > 1, "renorm: input needs at least 2 dimensions, got ", self.dim());
  const auto physical = physical_dim(dim, self.dim());
  const auto slices = at_front(self, level).movedim(physical, 1);
  const auto renormed = at::renorm(slices.flatten(0, 1), p, 0, maxnorm);
  return wrap(renormed.reshape_symint(slices.sym_sizes()).movedim(1, physical), 0, level);
}

at::Tensor& renorm_in_place_rule(Level& level, at::Tensor& self, const at::Scalar& p, int64_t dim,
                                 const at::Scalar& maxnorm) {
  const auto renormed = renorm_rule(level, self, p, dim, maxnorm);
  at_front(self, level).copy_(at_front(renormed, level));
  return self;
}

void register_over_everything() {
  add<at::_ops::sum>(sum_rule);
  add<at::_ops::mean>(mean_rule);
  add<at::_ops::prod>(prod_rule);
  add<at::_ops::max>(max_rule);
  add<at::_ops::min>(min_rule);
  add<at::_ops::_aminmax>(aminmax_rule);
  add<at::_ops::median>(median_rule);
  add<at::_ops::nanmedian>(nanmedian_rule);
  add<at::_ops::all>(all_rule);
  add<at::_ops::any>(any_rule);
  add<at::_ops::_is_all_true>(all_rule);
  add<at::_ops::_is_any_true>(any_rule);
  add<at::_ops::norm_Scalar>(norm_rule);
  add<at::_ops::norm_ScalarOpt_dtype>(norm_dtype_rule);
  add<at::_ops::dist>(dist_rule);
  add<at::_ops::trace>(trace_rule);
}

void register_along_dims() {
  // Reductions.
  add<at::_ops::sum_dim_IntList, AlongDims>({"dim"});
  add<at::_ops::nansum, AlongDims>({"dim"});
  add<at::_ops::mean_dim, AlongDims>({"dim"});
  add<at::_ops::prod_dim_int, AlongDims>({"dim"});
  add<at::_ops::amax, AlongDims>({"dim"});
  add<at::_ops::amin, AlongDims>({"dim"});
  add<at::_ops::aminmax, AlongDims>({"dim"});
  add<at::_ops::_aminmax_dim, AlongDims>({"dim"});
  add<at::_ops::all_dim, AlongDims>({"dim"});
  add<at::_ops::any_dim, AlongDims>({"dim"});
  add<at::_ops::all_dims>(truth_rule<at::_ops::all_dims>);
  add<at::_ops::any_dims>(truth_rule<at::_ops::any_dims>);
  add<at::_ops::count_nonzero, AlongDims>({"dim"});
  add<at::_ops::count_nonzero_dim_IntList, AlongDims>({"dim"});
  add<at::_ops::var_correction, AlongDims>({"dim"});
  add<at::_ops::std_correction, AlongDims>({"dim"});
  add<at::_ops::var_mean_correction, AlongDims>({"dim"});
  add<at::_ops::std_mean_correction, AlongDims>({"dim"});
  add<at::_ops::norm_ScalarOpt_dim, AlongDims>({"dim"});
  add<at::_ops::norm_ScalarOpt_dim_dtype, AlongDims>({"dim"});
  add<at::_ops::linalg_vector_norm, AlongDims>({"dim"});
  add<at::_ops::logsumexp, AlongDims>({"dim"});
  add<at::_ops::hash_tensor, AlongDims>({"dim"});
  // Reductions that also say where.
  add<at::_ops::max_dim, AlongDims>({"dim"});
  add<at::_ops::min_dim, AlongDims>({"dim"});
  add<at::_ops::median_dim, AlongDims>({"dim"});
  add<at::_ops::nanmedian_dim, AlongDims>({"dim"});
  add<at::_ops::argmax, AlongDims>({"dim"});
  add<at::_ops::argmin, AlongDims>({"dim"});
  // Others.
  add<at::_ops::renorm>(renorm_rule);
  add<at::_ops::renorm_>(renorm_in_place_rule);
}

}  // namespace

void register_reductions_rules() {
  register_over_everything();
  register_along_dims();
}

}  // namespace functorch_ext
