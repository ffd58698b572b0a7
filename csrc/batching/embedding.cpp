// Rows of a table by their numbers.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

// Row i of sample b's table is row b * rows + i of all tables on top of each other.
at::Tensor in_merged_table(const at::Tensor& indices, const c10::SymInt& rows, const Level& level) {
  check_indices(indices, rows);
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
  return wrap(split_from(tables, 0, level, num_weights), 0, level);
}

// Rows that are too long are made shorter in place.
at::Tensor& embedding_renorm_rule(Level& level, at::Tensor& self, const at::Tensor& indices,
                                  double max_norm, double norm_type) {
  const auto value = at_front(self, level);
  auto table = merge_into(value, 0).contiguous();
  const auto places = in_merged_table(indices, self.sym_size(0), level);
  at::embedding_renorm_(
      table, places.expand_symint(physical_sizes(indices.sym_sizes(), level)).contiguous(),
      max_norm, norm_type);
  value.copy_(split_from(table, 0, level, self.sym_size(0)));
  return self;
}

// Bags of rows: the sum, mean or maximum of each. The bags of all samples are those of one larger
// call.
enum Mode : int64_t { BagSum = 0, BagMean = 1, BagMax = 2 };

// Bags that reached beyond a sample's indices would hold another sample's.
void check_offsets(const at::Tensor& offsets, const c10::SymInt& length) {
  TORCH_CHECK(holds_for_all(offsets.ge(0).logical_and(offsets.le(length))),
              "embedding_bag: offsets must be from 0 to the number of indices, ", length);
  TORCH_CHECK(offsets.sym_size(0) == 0 || holds_for_all(offsets.select(0, 0).eq(0)),
              "embedding_bag: offsets[0] has to be 0");
  TORCH_CHECK(holds_for_all(offsets.diff().ge(0)), "embedding_bag: offsets must not decrease");
}

// Where the rows of all samples' bags are in the merged table. Rows that don't count (those for
// padding) are in one more row at its end.
struct Bags {
  Bags(const at::Tensor& indices, const at::Tensor& offsets, const c10::SymInt& table_rows,
       bool tables_differ, int64_t padding_idx, const Level& level_)
      : level(level_),
        rows(table_rows),
        merged_rows(tables_differ ? level.batch_size * rows : rows) {
    if (tables_differ) {
      check_indices(indices, rows);
    }
    check_offsets(offsets, indices.sym_numel());
    const auto dtype = at::promote_types(indices.scalar_type(), offsets.scalar_type());
    const auto given = expanded_at_front(indices, level).to(dtype);
    starts = expanded_at_front(offsets, level).to(dtype);
    places = tables_differ ? given + samples(given) * rows : given;
    if (padding_idx >= 0) {
      is_padding = given.eq(padding_idx);
      padding = tables_differ ? merged_rows : c10::SymInt(padding_idx);
      if (tables_differ) {
        places = at::where(is_padding, *padding, places);
      }
    }
    places = places.flatten();
  }

  // The number of each sample, next to what belongs to it.
  at::Tensor samples(const at::Tensor& like) const {
    auto number = at::arange(level.batch_size, like.options());
    for (int64_t dim = 1; dim < like.dim(); ++dim) {
      number = number.unsqueeze(-1);
    }
    return number;
  }
  at::Tensor merged_offsets() const {
    return (starts + samples(starts) * length()).flatten();
  }
  c10::SymInt length() const {
    return level.batch_size == 0 ? c10::SymInt(0) : places.sym_size(0) / level.batch_size;
  }
  // For each place the bag of its sample that it is in.
  at::Tensor bag_of_each() const {
    const auto numbers = at::arange(length(), starts.options())
                             .expand_symint({level.batch_size, length()})
                             .contiguous();
    return at::searchsorted(starts.contiguous(), numbers, starts.scalar_type() == at::kInt,
                            /*right=*/true)
        .sub_(1);
  }
  int64_t padding_number() const {
    return padding ? padding->guard_int(__FILE__, __LINE__) : -1;
  }

  const Level& level;
  c10::SymInt rows;
  c10::SymInt merged_rows;
  at::Tensor places;      // (samples * length,)
  at::Tensor starts;      // (samples, bags)
  at::Tensor is_padding;  // (samples, length), or undefined: there is none
  std::optional<c10::SymInt> padding;
};

at::Tensor merged_table(const at::Tensor& weight, bool with_padding, const Level& level) {
  if (!is_batched_at(weight, level)) {
    return value_of(weight, level);
  }
  const auto table = merge_into(at_front(weight, level), 0);
  return with_padding ? at::constant_pad_nd(table, {0, 0, 0, 1}) : table;
}

std::optional<at::Tensor> merged(const std::optional<at::Tensor>& tensor, const Level& level) {
  return tensor && tensor->defined()
             ? std::optional(merge_into(expanded_at_front(*tensor, level), 0))
             : std::nullopt;
}

template <class Op>
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> embedding_bag_rule(
    Level& level, const at::Tensor& weight, const at::Tensor& indices, const at::Tensor& offsets,
    bool scale_grad_by_freq, int64_t mode, bool sparse,
    const std::optional<at::Tensor>& per_sample_weights, bool include_last_offset,
    int64_t padding_idx) {
  const bool tables_differ = is_batched_at(weight, level);
  const Bags bags(indices, offsets, weight.sym_size(0), tables_differ, padding_idx, level);
  const auto table = merged_table(weight, padding_idx >= 0, level);
  const auto weights = merged(per_sample_weights, level);
  // PyTorch takes the form without derivatives where this plane has none. The one below may have.
  const auto op = any_differentiated(table, weights) ? &at::_ops::_embedding_bag::call : &Op::call;
  // A last offset starts one more bag, of what no other bag holds.
  const auto [sums, bag_of_each, sizes, maxima] =
      op(table, bags.places, bags.merged_offsets(), scale_grad_by_freq, mode, sparse, weights,
         /*include_last_offset=*/false, bags.padding_number());
  const auto count = offsets.sym_size(0) - (include_last_offset ? 1 : 0);
  const auto by_sample = [&](const at::Tensor& result) {
    return split_from(result, 0, level, offsets.sym_size(0)).narrow_symint(1, 0, count);
  };
  auto rows = maxima;
  if (mode == BagMax) {
    rows = by_sample(maxima);
    rows = tables_differ ? rows - bags.samples(rows) * bags.rows : rows;
  } else {
    rows = maxima.new_empty_symint({level.batch_size, 0});
  }
  return {wrap(by_sample(sums), 0, level),
          wrap(bag_of_each.new_empty_symint({level.batch_size, 0}), 0, level),
          wrap(by_sample(sizes), 0, level), wrap(rows, 0, level)};
}

at::Tensor embedding_bag_backward_rule(Level& level, const at::Tensor& grad,
                                       const at::Tensor& indices, const at::Tensor& offsets,
                                       const at::Tensor&, const at::Tensor& bag_size,
                                       const at::Tensor& maximum_indices, c10::SymInt num_weights,
                                       bool scale_grad_by_freq, int64_t mode, bool,
                                       const std::optional<at::Tensor>& per_sample_weights,
                                       int64_t padding_idx) {
  const auto grads = expanded_at_front(grad, level);
  const auto sizes = expanded_at_front(bag_size, level);
  if (mode == BagMax) {
    const auto filled = sizes.gt(0).unsqueeze(-1);
    const auto rows = at::where(filled, expanded_at_front(maximum_indices, level), 0).to(at::kLong);
    const auto table = grads.new_zeros_symint({level.batch_size, num_weights, grad.sym_size(1)});
    return wrap(table.scatter_add(1, rows, at::where(filled, grads, 0)), 0, level);
  }
  Bags bags(indices, offsets, num_weights, /*tables_differ=*/true, padding_idx, level);
  auto bag = bags.bag_of_each();
  auto outside = bag.ge(grad.sym_size(0));
  bag = at::where(outside, 0, bag);
  // One more row takes what doesn't count.
  bags.places = at::where(outside.flatten(), bags.merged_rows, bags.places);
  auto weights = merged(per_sample_weights, level);
  if (scale_grad_by_freq) {
    // As documented: by how often the sample uses the row. PyTorch's kernel for CPU counts another.
    const auto ones = at::ones_like(bags.places, grads.options());
    const auto uses = ones.new_zeros_symint({bags.merged_rows + 1})
                          .index_add(0, bags.places, ones)
                          .index_select(0, bags.places);
    weights = weights ? *weights / uses : uses.reciprocal();
    if (mode == BagMean) {
      weights = *weights / sizes.gather(1, bag).flatten();
      mode = BagSum;
    }
  }
  const auto table = at::_embedding_bag_dense_backward_symint(
      merge_into(grads, 0).contiguous(), bags.places,
      (bag + bags.samples(bag) * grad.sym_size(0)).flatten(), sizes.flatten().contiguous(),
      sizes.flatten(), bags.merged_rows + 1, /*scale_grad_by_freq=*/false, mode, weights,
      bags.merged_rows.guard_int(__FILE__, __LINE__));
  return wrap(split_from(table.narrow_symint(0, 0, bags.merged_rows), 0, level, num_weights), 0,
              level);
}

at::Tensor bag_weights_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& weight,
                                     const at::Tensor& indices, const at::Tensor& offsets,
                                     const at::Tensor&, int64_t mode, int64_t padding_idx) {
  const bool tables_differ = is_batched_at(weight, level);
  const Bags bags(indices, offsets, weight.sym_size(0), tables_differ, -1, level);
  const auto bag = bags.bag_of_each();
  const auto outside = bag.ge(grad.sym_size(0));
  const auto inside = at::where(outside, 0, bag);
  const auto products = at::_embedding_bag_per_sample_weights_backward(
      merge_into(expanded_at_front(grad, level), 0), merged_table(weight, false, level),
      bags.places, bags.merged_offsets(),
      (inside + bags.samples(inside) * grad.sym_size(0)).flatten(), mode, -1);
  auto skipped = outside;
  if (padding_idx >= 0) {
    skipped = skipped.logical_or(expanded_at_front(indices, level).eq(padding_idx));
  }
  return wrap(at::where(skipped, 0, split_from(products, 0, level, bags.length())), 0, level);
}

// A gradient of sparse layout can't differ between samples: there the dense one.
std::optional<at::Tensor> dense_gradients(Level&, const at::Tensor& grad, const at::Tensor& indices,
                                          int64_t num_weights, int64_t padding_idx,
                                          bool scale_grad_by_freq) {
  return at::embedding_dense_backward(grad, indices, num_weights, padding_idx, scale_grad_by_freq);
}

}  // namespace

void register_embedding_rules() {
  add<at::_ops::embedding>(embedding_rule);
  add<at::_ops::embedding_dense_backward>(embedding_backward_rule);

  add_decomposition<at::_ops::embedding_sparse_backward>(dense_gradients);

  add<at::_ops::embedding_renorm_>(embedding_renorm_rule);

  add<at::_ops::_embedding_bag>(embedding_bag_rule<at::_ops::_embedding_bag>);
  add<at::_ops::_embedding_bag_forward_only>(
      embedding_bag_rule<at::_ops::_embedding_bag_forward_only>);
  add<at::_ops::_embedding_bag_backward>(embedding_bag_backward_rule);
  add<at::_ops::_embedding_bag_per_sample_weights_backward>(bag_weights_backward_rule);
}

}  // namespace functorch_ext
