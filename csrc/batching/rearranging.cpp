// Copies of a tensor with its numbers in other places, and the counterparts of views: what writes
// into a part, and the derivatives.
#include "batching/channels.h"
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

template <class Op>
at::Tensor triangle_rule(Level& level, const at::Tensor& self, c10::SymInt diagonal) {
  TORCH_CHECK(self.dim() >= 2, "expected a tensor of at least 2 dimensions, got ", self.dim());
  return wrap(Op::call(at_front(self, level), diagonal), 0, level);
}

template <class Op>
at::Tensor& triangle_in_place_rule(Level& level, at::Tensor& self, c10::SymInt diagonal) {
  TORCH_CHECK(self.dim() >= 2, "expected a tensor of at least 2 dimensions, got ", self.dim());
  auto value = at_front(self, level);
  Op::call(value, diagonal);
  return self;
}

at::Tensor flip_rule(Level& level, const at::Tensor& self, at::IntArrayRef dims) {
  const auto rank = std::max<int64_t>(self.dim(), 1);
  auto value = at_front(self, level);
  value = self.dim() == 0 ? value.unsqueeze(1) : value;
  const auto flipped = at::flip(value, physical_dims(dims, rank));
  return wrap(self.dim() == 0 ? flipped.squeeze(1) : flipped, 0, level);
}

at::Tensor roll_rule(Level& level, const at::Tensor& self, c10::SymIntArrayRef shifts,
                     at::IntArrayRef dims) {
  const auto value = at_front(self, level);
  if (self.dim() == 0) {
    return wrap(value.clone(), 0, level);
  }
  if (!dims.empty()) {
    return wrap(at::roll_symint(value, shifts, physical_dims(dims, self.dim())), 0, level);
  }
  TORCH_CHECK(shifts.size() == 1, "roll: without dims there must be one shift, got ",
              shifts.size());
  const auto rolled = at::roll_symint(value.flatten(1), shifts, {1});
  return wrap(rolled.reshape_symint(value.sym_sizes()), 0, level);
}

at::Tensor rot90_rule(Level& level, const at::Tensor& self, int64_t k, at::IntArrayRef dims) {
  return wrap(at::rot90(at_front(self, level), k, physical_dims(dims, self.dim())), 0, level);
}

at::Tensor repeat_rule(Level& level, const at::Tensor& self, c10::SymIntArrayRef repeats) {
  const auto rank = static_cast<int64_t>(repeats.size());
  TORCH_CHECK(rank >= self.dim(), "repeat: a tensor of rank ", self.dim(), " and ", rank,
              " numbers of repeats; there must be one for each dimension");
  std::vector<c10::SymInt> physical = {1};
  physical.insert(physical.end(), repeats.begin(), repeats.end());
  return wrap(aligned(self, rank, level).repeat_symint(physical), 0, level);
}

at::Tensor diag_embed_rule(Level& level, const at::Tensor& self, int64_t offset, int64_t dim1,
                           int64_t dim2) {
  const auto rank = self.dim() + 1;
  return wrap(at::diag_embed(at_front(self, level), offset, physical_dim(dim1, rank),
                             physical_dim(dim2, rank)),
              0, level);
}

// Per channel, so the samples join N.
at::Tensor channel_shuffle_rule(Level& level, const at::Tensor& self, c10::SymInt groups) {
  const JoinedWithN joined(self, level);
  return joined.part(at::channel_shuffle_symint(joined.value(), std::move(groups)));
}

// Derivatives of views: the gradient in a tensor of zeros of the size of what was viewed.
int64_t rank_of(c10::SymIntArrayRef sizes) {
  return static_cast<int64_t>(sizes.size());
}

at::Tensor select_backward_rule(Level& level, const at::Tensor& grad, c10::SymIntArrayRef sizes,
                                int64_t dim, c10::SymInt index) {
  return wrap(at::select_backward_symint(at_front(grad, level), physical_sizes(sizes, level),
                                         physical_dim(dim, rank_of(sizes)), index),
              0, level);
}

at::Tensor slice_backward_rule(Level& level, const at::Tensor& grad, c10::SymIntArrayRef sizes,
                               int64_t dim, c10::SymInt start, c10::SymInt end, c10::SymInt step) {
  return wrap(at::slice_backward_symint(at_front(grad, level), physical_sizes(sizes, level),
                                        physical_dim(dim, rank_of(sizes)), start, end, step),
              0, level);
}

at::Tensor diagonal_backward_rule(Level& level, const at::Tensor& grad, c10::SymIntArrayRef sizes,
                                  int64_t offset, int64_t dim1, int64_t dim2) {
  return wrap(at::diagonal_backward_symint(at_front(grad, level), physical_sizes(sizes, level),
                                           offset, physical_dim(dim1, rank_of(sizes)),
                                           physical_dim(dim2, rank_of(sizes))),
              0, level);
}

at::Tensor unfold_backward_rule(Level& level, const at::Tensor& grad, c10::SymIntArrayRef sizes,
                                int64_t dim, int64_t size, int64_t step) {
  auto value = at_front(grad, level);
  if (sizes.empty()) {  // one window over a number
    return wrap(value.flatten(1).sum(1), 0, level);
  }
  return wrap(at::unfold_backward_symint(value, physical_sizes(sizes, level),
                                         physical_dim(dim, rank_of(sizes)), size, step),
              0, level);
}

// A copy of self with src written into a part.
at::Tensor select_scatter_rule(Level& level, const at::Tensor& self, const at::Tensor& src,
                               int64_t dim, c10::SymInt index) {
  return wrap(
      at::select_scatter_symint(expanded_to_change(self, level), expanded_at_front(src, level),
                                physical_dim(dim, self.dim()), index),
      0, level);
}

// Strides and offset are those of one sample, in memory that all of its numbers lie in; each sample
// gets a copy of it.
at::Tensor as_strided_scatter_rule(Level& level, const at::Tensor& self, const at::Tensor& src,
                                   c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                                   std::optional<c10::SymInt> storage_offset) {
  auto value = at_front(self, level);
  std::vector<c10::SymInt> strides = {0};
  strides.insert(strides.end(), stride.begin(), stride.end());
  if (is_batched_at(self, level)) {
    strides[0] = value.sym_stride(0);
  } else {
    const auto offset = value.sym_storage_offset();
    c10::SymInt extent = offset + 1;
    for (int64_t dim = 0; dim < value.dim(); ++dim) {
      extent += (value.sym_size(dim) - 1).max(0) * value.sym_stride(dim);
    }
    const auto memory = value.as_strided_symint({extent}, {1}, 0)
                            .expand_symint({level.batch_size, extent})
                            .contiguous();
    auto own_sizes = physical_sizes(value.sym_sizes(), level);
    std::vector<c10::SymInt> own_strides = {extent};
    own_strides.insert(own_strides.end(), value.sym_strides().begin(), value.sym_strides().end());
    value = memory.as_strided_symint(own_sizes, own_strides, offset);
    strides[0] = extent;
  }
  return wrap(at::as_strided_scatter_symint(value, expanded_at_front(src, level),
                                            physical_sizes(size, level), strides,
                                            std::move(storage_offset)),
              0, level);
}

}  // namespace

void register_rearranging_rules() {
  add<at::_ops::tril>(triangle_rule<at::_ops::tril>);
  add<at::_ops::triu>(triangle_rule<at::_ops::triu>);
  add<at::_ops::tril_>(triangle_in_place_rule<at::_ops::tril_>);
  add<at::_ops::triu_>(triangle_in_place_rule<at::_ops::triu_>);
  add<at::_ops::flip>(flip_rule);
  add<at::_ops::roll>(roll_rule);
  add<at::_ops::rot90>(rot90_rule);
  add<at::_ops::repeat>(repeat_rule);
  add<at::_ops::diag_embed>(diag_embed_rule);
  add<at::_ops::pixel_shuffle, Leading>();
  add<at::_ops::pixel_unshuffle, Leading>();
  add<at::_ops::channel_shuffle>(channel_shuffle_rule);

  add<at::_ops::select_backward>(select_backward_rule);
  add<at::_ops::slice_backward>(slice_backward_rule);
  add<at::_ops::diagonal_backward>(diagonal_backward_rule);
  add<at::_ops::unfold_backward>(unfold_backward_rule);

  add<at::_ops::select_scatter>(select_scatter_rule);
  add<at::_ops::slice_scatter, AlongDims>({"dim"});
  add<at::_ops::diagonal_scatter, AlongDims>({"dim1", "dim2"});
  add<at::_ops::as_strided_scatter>(as_strided_scatter_rule).unchecked();
}

}  // namespace functorch_ext
