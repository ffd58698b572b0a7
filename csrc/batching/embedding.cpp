// Rows of a table by their numbers.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Row i of sample b's table is row b * rows + i of all tables on top of each other.
at::Tensor in_merged_table(const at::Tensor& indices, const c10::SymInt& rows, const Level& level) {
  auto offset = at::arange(level.batch_size, value_of(indices, level).options()) * rows;
  for (int64_t dim = 0; dim < indices.dim(); ++dim) {
    offset = offset.unsqueeze(-1);
  }
  return at_front(indices, level) + offset;
}

at::Tensor embedding_rule(Level& level, const at::Tensor& weight, const at::Tensor& indices,
                          c10::SymInt padding_idx, bool scale_grad_by_freq, bool sparse) {
  TORCH_CHECK(weight.dim() == 2, "embedding: the weight must be a matrix, got rank ", weight.dim());
  // The derivative counts how often a row is used, which is per sample: each needs its own table.
  const bool shared = !is_batched_at(weight, level) && !scale_grad_by_freq;
  if (shared) {
    const auto rows = at::embedding_symint(value_of(weight, level), value_of(indices, level),
                                           padding_idx, scale_grad_by_freq, sparse);
    return wrap(rows, bdim_of(indices, level), level);
  }
  const auto table = merge_into(expanded_at_front(weight, level), 0);
  const auto places = in_merged_table(indices, weight.sym_size(0), level);
  auto rows = at::embedding_symint(table, places, -1, scale_grad_by_freq, false);
  if (padding_idx >= 0) {
    // The row for padding has no gradient.
    const auto is_padding = value_of(indices, level).eq(padding_idx);
    const auto bdim = bdim_of(indices, level);
    const auto at_padding = at_front(wrap(is_padding, bdim, level), level).unsqueeze(-1);
    rows = at::where(at_padding, rows.detach(), rows);
  }
  return wrap(rows, 0, level);
}

at::Tensor embedding_backward_rule(Level& level, const at::Tensor& grad_output,
                                   const at::Tensor& indices, c10::SymInt num_weights,
                                   c10::SymInt padding_idx, bool scale_grad_by_freq) {
  if (!is_batched_at(indices, level)) {
    // The same rows for all samples: they are columns of one longer row.
    const auto grad = at_front(grad_output, level);
    const auto longer = grad.movedim(0, -2).flatten(-2);
    const auto table = at::embedding_dense_backward_symint(
        longer, value_of(indices, level), num_weights, padding_idx, scale_grad_by_freq);
    const std::vector<c10::SymInt> columns = {level.batch_size, grad.sym_size(-1)};
    return wrap(table.unflatten_symint(1, columns), 1, level);
  }
  auto grad = expanded_at_front(grad_output, level);
  if (padding_idx >= 0) {
    grad = grad.masked_fill(at_front(indices, level).eq(padding_idx).unsqueeze(-1), 0);
  }
  const auto tables =
      at::embedding_dense_backward_symint(grad, in_merged_table(indices, num_weights, level),
                                          level.batch_size * num_weights, -1, scale_grad_by_freq);
  return wrap(split_from(tables, 0, level), 0, level);
}

}  // namespace

void register_embedding_rules() {
  add<at::_ops::embedding>(embedding_rule);
  add<at::_ops::embedding_dense_backward>(embedding_backward_rule);
}

}  // namespace functorch_ext
