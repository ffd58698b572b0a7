// Bags of embeddings, of which PyTorch has first derivatives of reverse mode alone: made of those
// of single indices.
#include "batching/operators.h"
#include "derivatives/given.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

enum : int64_t { mode_sum, mode_mean, mode_max };

// The rows of a table that a call reads, and the bag of each.
struct Bags {
  at::Tensor indices;
  int64_t count;
  at::Tensor bag;       // of each index
  at::Tensor left_out;  // is an index that of the padding, or in no bag?

  // A last offset beyond those of the bags starts what is in none.
  Bags(const at::Tensor& all_indices, const at::Tensor& offsets, int64_t bags, int64_t padding)
      : indices(all_indices), count(bags) {
    const auto places = at::arange(indices.size(0), offsets.options());
    const auto number = at::searchsorted(offsets, places, /*out_int32=*/false, /*right=*/true) - 1;
    left_out = number.ge(count);
    if (padding >= 0) {
      left_out = left_out.logical_or(indices.eq(padding));
    }
    bag = number.clamp_max(count - 1);
  }

  at::Tensor without_padding(const at::Tensor& rows) const {
    return rows.masked_fill(rows.dim() > 1 ? left_out.unsqueeze(1) : left_out, 0);
  }
  at::Tensor sum(const at::Tensor& rows) const {
    auto sizes = rows.sizes().vec();
    sizes[0] = count;
    return rows.new_zeros(sizes).index_add(0, bag, rows);
  }
  // How many indices a bag has, as a column.
  at::Tensor sizes(at::ScalarType dtype) const {
    return sum(left_out.logical_not().to(dtype)).unsqueeze(1);
  }
};

// The rows where a bag has its largest numbers, and whether it has any.
std::pair<at::Tensor, at::Tensor> rows_of_maxima(const at::Tensor& maxima, const Bags& bags) {
  const auto is_empty = bags.sizes(at::kLong).eq(0).expand_as(maxima);
  return {maxima.to(at::kLong).masked_fill(is_empty, 0), is_empty};
}

using Results = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

template <class Op>
Results embedding_bag(const at::Tensor& weight, const at::Tensor& indices,
                      const at::Tensor& offsets, bool scale_grad_by_freq, int64_t mode, bool,
                      const OptionalTensor& weights, bool include_last_offset, int64_t padding) {
  // What has no derivative is PyTorch's.
  const auto constants = is_given(weights) ? OptionalTensor(weights->detach()) : weights;
  auto [output, bag_of_index, sizes, maxima] =
      Op::call(weight.detach(), indices, offsets, scale_grad_by_freq, mode, /*sparse=*/false,
               constants, include_last_offset, padding);
  const Bags bags(indices, offsets, offsets.size(0) - (include_last_offset ? 1 : 0), padding);
  if (mode == mode_max) {
    const auto [rows, is_empty] = rows_of_maxima(maxima, bags);
    output = weight.gather(0, rows).masked_fill(is_empty, 0);
  } else {
    auto rows = bags.without_padding(weight.index_select(0, indices));
    if (is_given(weights)) {
      rows = rows * weights->unsqueeze(1);
    }
    output = bags.sum(rows);
    if (mode == mode_mean) {
      output = output / bags.sizes(weight.scalar_type()).clamp_min(1);
    }
  }
  return {output, bag_of_index, sizes, maxima};
}

at::Tensor gradient_of_table(const at::Tensor& grad, const Bags& bags, const at::Tensor& maxima,
                             int64_t num_weights, bool scale_grad_by_freq, int64_t mode,
                             const OptionalTensor& weights) {
  auto gradient = grad.new_zeros({num_weights, grad.size(1)});
  if (mode == mode_max) {
    const auto [rows, is_empty] = rows_of_maxima(maxima, bags);
    return gradient.scatter_add(0, rows, grad.masked_fill(is_empty, 0));
  }
  const auto of_bags =
      mode == mode_mean ? grad / bags.sizes(grad.scalar_type()).clamp_min(1) : grad;
  auto rows = bags.without_padding(of_bags.index_select(0, bags.bag));
  if (is_given(weights)) {
    rows = rows * weights->unsqueeze(1);
  }
  if (scale_grad_by_freq) {
    const auto ones = at::ones_like(bags.indices, grad.options());
    const auto frequencies = grad.new_zeros({num_weights}).index_add(0, bags.indices, ones);
    rows = rows / frequencies.index_select(0, bags.indices).unsqueeze(1);
  }
  return gradient.index_add(0, bags.indices, rows);
}

at::Tensor backward(const at::Tensor& grad, const at::Tensor& indices, const at::Tensor& offsets,
                    const at::Tensor&, const at::Tensor&, const at::Tensor& maxima,
                    c10::SymInt num_weights, bool scale_grad_by_freq, int64_t mode, bool,
                    const OptionalTensor& weights, int64_t padding) {
  return gradient_of_table(grad, Bags(indices, offsets, grad.size(0), padding), maxima,
                           num_weights.guard_int(__FILE__, __LINE__), scale_grad_by_freq, mode,
                           weights);
}

at::Tensor gradient_of_weights(const at::Tensor& grad, const at::Tensor& weight,
                               const at::Tensor& indices, const at::Tensor& offsets,
                               const at::Tensor&, int64_t, int64_t padding) {
  const Bags bags(indices, offsets, grad.size(0), padding);
  const auto products = grad.index_select(0, bags.bag) * weight.index_select(0, indices);
  return bags.without_padding(products.sum(1));
}

}  // namespace

void register_bags_derivatives() {
  using namespace at::_ops;
  add_computed_when<_embedding_bag, has_tangents, embedding_bag<_embedding_bag>>();
  // PyTorch calls this one where the table doesn't require grad: it may on a plane below.
  add_computed_when<_embedding_bag_forward_only, is_differentiated_here, _embedding_bag::call>();
  add_computed_when<_embedding_bag_backward, is_differentiated_here, backward>();
  add_computed_when<_embedding_bag_per_sample_weights_backward, is_differentiated_here,
                    gradient_of_weights>();
}

}  // namespace functorch_ext
