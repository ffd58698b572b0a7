#include "batching/channels.h"

#include "batching/operators.h"

namespace functorch_ext {

at::Tensor unflatten(const at::Tensor& value, int64_t dim, const c10::SymInt& outer) {
  auto sizes = value.sym_sizes().vec();
  TORCH_CHECK(dim < value.dim(), "expected an argument with more than ", dim,
              dim == 1 ? " dimension" : " dimensions");
  sizes[dim] = sizes[dim] / outer;
  sizes.insert(sizes.begin() + dim, outer);
  return value.reshape_symint(sizes);
}

JoinedWithN::JoinedWithN(const at::Tensor& tensor, const Level& level)
    : level_(level), n_first_(bdim_of(tensor, level) == 1), n_(tensor.sym_size(0)) {
  value_ = (n_first_ ? value_of(tensor, level) : expanded_at_front(tensor, level)).flatten(0, 1);
}

at::Tensor JoinedWithN::part(const at::Tensor& result) const {
  if (!result.defined()) {
    return result;
  }
  auto sizes = result.sym_sizes().vec();
  sizes[0] = n_first_ ? level_.batch_size : n_;
  sizes.insert(sizes.begin(), n_first_ ? n_ : level_.batch_size);
  return wrap(result.reshape_symint(sizes), n_first_ ? 1 : 0, level_);
}

at::Tensor join_channels(const at::Tensor& value, int64_t dim, const c10::SymInt& groups) {
  if (groups.maybe_as_int() == 1) {
    return merge_into(value, dim);
  }
  return unflatten(value, dim + 1, groups).movedim(0, dim + 1).flatten(dim, dim + 2);
}

at::Tensor part_channels(const at::Tensor& value, int64_t dim, const Level& level,
                         const c10::SymInt& groups) {
  if (groups.maybe_as_int() == 1) {
    return wrap(unflatten(value, dim, level.batch_size), dim, level);
  }
  const auto apart = unflatten(unflatten(value, dim, groups), dim + 1, level.batch_size);
  return wrap(apart.movedim(dim + 1, 0).flatten(dim + 1, dim + 2), 0, level);
}

at::Tensor per_channel(const at::Tensor& value, int64_t rank) {
  TORCH_CHECK(value.dim() > 0 && rank >= 2, "expected one number for each channel");
  auto sizes = value.sym_sizes().vec();
  sizes.insert(sizes.end() - 1, c10::SymInt(1));
  sizes.insert(sizes.end(), rank - 2, c10::SymInt(1));
  return value.reshape_symint(sizes);
}

at::Tensor sum_per_channel(const at::Tensor& value, int64_t rank) {
  const auto n = value.dim() - rank;
  std::vector<int64_t> dims = {n};
  for (auto dim = n + 2; dim < value.dim(); ++dim) {
    dims.push_back(dim);
  }
  return value.sum(dims);
}

at::Tensor of_no_samples(const at::Tensor& like, c10::SymIntArrayRef sizes, const Level& level) {
  return wrap(value_of(like, level).new_zeros_symint(physical_sizes(sizes, level)), 0, level);
}

}  // namespace functorch_ext
