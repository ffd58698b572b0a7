// Sequences of different lengths: segments, packed sequences, connectionist temporal
// classification.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"

namespace functorch_ext {

namespace {

using Lengths = std::optional<at::Tensor>;

Lengths lengths_at_front(const Lengths& lengths, const Level& level) {
  return lengths && lengths->defined()
             ? std::optional(expanded_at_front(*lengths, level).contiguous())
             : std::nullopt;
}

int64_t axis_behind_samples(int64_t axis, const at::Tensor& data) {
  return physical_dim(axis, data.dim());
}

at::Tensor segment_reduce_rule(Level& level, const at::Tensor& data, c10::string_view reduce,
                               const Lengths& lengths, const Lengths& indices,
                               const Lengths& offsets, int64_t axis, bool unsafe,
                               const std::optional<at::Scalar>& initial) {
  return wrap(
      at::segment_reduce(expanded_at_front(data, level), reduce, lengths_at_front(lengths, level),
                         lengths_at_front(indices, level), lengths_at_front(offsets, level),
                         axis_behind_samples(axis, data), unsafe || level.batch_size == 0, initial),
      0, level);
}

at::Tensor segment_reduce_backward_rule(Level& level, const at::Tensor& grad,
                                        const at::Tensor& output, const at::Tensor& data,
                                        c10::string_view reduce, const Lengths& lengths,
                                        const Lengths& offsets, int64_t axis,
                                        const std::optional<at::Scalar>& initial) {
  const auto value = [&](const at::Tensor& tensor) {
    return expanded_at_front(tensor, level).contiguous();
  };
  return wrap(at::_segment_reduce_backward(
                  value(grad), value(output), value(data), reduce, lengths_at_front(lengths, level),
                  lengths_at_front(offsets, level), axis_behind_samples(axis, data), initial),
              0, level);
}

// How long the sequences are decides the shape of what they are packed into.
at::Tensor shared_lengths(const at::Tensor& lengths, const char* name) {
  const auto agreed = agreed_value(lengths);
  TORCH_CHECK(agreed, "functorch_ext.vmap: ", name,
              ": the lengths of the sequences differ between samples, and with them the shape of "
              "the result. Pass padded sequences and mask them with torch.where.");
  return *agreed;
}

// Behind all other dimensions, where packing leaves the samples alone.
at::Tensor samples_last(const at::Tensor& tensor, const Level& level) {
  const auto value = value_of(tensor, level);
  return is_batched_at(tensor, level) ? value.movedim(bdim_of(tensor, level), -1) : value;
}

std::tuple<at::Tensor, at::Tensor> pack_padded_sequence_rule(Level& level, const at::Tensor& input,
                                                             const at::Tensor& lengths,
                                                             bool batch_first) {
  const auto [data, sizes] = at::_pack_padded_sequence(
      samples_last(input, level), shared_lengths(lengths, "pack_padded_sequence"), batch_first);
  // The sizes stay a tensor whose numbers can be read.
  return {wrap(data, is_batched_at(input, level) ? input.dim() - 1 : no_bdim, level), sizes};
}

// A packed sequence has, for each time, a row for every sequence that is as long. Where these rows
// are among those of the padded sequences, (time, sequence) counted row by row.
struct Packing {
  Packing(const at::Tensor& batch_sizes, const at::Tensor& like, const char* name) {
    const auto shared = shared_lengths(batch_sizes, name).to(at::kLong);
    const auto* sizes = shared.const_data_ptr<int64_t>();
    times = shared.numel();
    sequences = times > 0 ? sizes[0] : 0;
    std::vector<int64_t> rows;
    std::vector<int64_t> counts(sequences, 0);
    for (int64_t time = 0; time < times; ++time) {
      for (int64_t sequence = 0; sequence < sizes[time]; ++sequence) {
        rows.push_back(time * sequences + sequence);
        ++counts[sequence];
      }
    }
    places = at::tensor(rows, at::kLong).to(like.device());
    lengths = at::tensor(counts, at::kLong);
  }

  int64_t times;
  int64_t sequences;
  at::Tensor places;
  at::Tensor lengths;
};

// These two read the batch sizes, which are the same for all samples.
std::optional<at::Tensor> pack_padded_sequence_backward(Level&, const at::Tensor& grad,
                                                        c10::SymIntArrayRef input_size,
                                                        const at::Tensor& batch_sizes,
                                                        bool batch_first) {
  const Packing packing(batch_sizes, grad, "pack_padded_sequence");
  const auto times = input_size[batch_first ? 1 : 0];
  const auto sequences = input_size[batch_first ? 0 : 1];
  auto sizes = grad.sym_sizes().vec();
  sizes[0] = times * sequences;
  const auto padded = grad.new_zeros_symint(sizes)
                          .index_copy(0, packing.places, grad)
                          .unflatten_symint(0, {times, sequences});
  return batch_first ? padded.transpose(0, 1) : padded;
}

std::optional<std::tuple<at::Tensor, at::Tensor>> pad_packed_sequence(
    Level&, const at::Tensor& data, const at::Tensor& batch_sizes, bool batch_first,
    const at::Scalar& padding_value, int64_t total_length) {
  const Packing packing(batch_sizes, data, "pad_packed_sequence");
  TORCH_CHECK(total_length <= 0 || total_length >= packing.times,
              "Expected total_length to be at least the length of the longest sequence in input, "
              "but got total_length=",
              total_length, " and max sequence length being ", packing.times);
  const auto times = std::max(packing.times, total_length);
  auto sizes = data.sym_sizes().vec();
  sizes[0] = times * packing.sequences;
  const auto padded = data.new_full_symint(sizes, padding_value)
                          .index_copy(0, packing.places, data)
                          .unflatten(0, {times, packing.sequences});
  return std::make_tuple(batch_first ? padded.transpose(0, 1) : padded, packing.lengths);
}

// The sequences of all samples are those of one larger N; scores are (time, N, classes), targets
// (N, longest) or one after another.
at::Tensor all_scores(const at::Tensor& scores, const Level& level) {
  return merge_into(expanded_at_front(scores, level), 1);
}
at::Tensor all_sequences(const at::Tensor& tensor, const Level& level) {
  return merge_into(expanded_at_front(tensor, level), 0);
}
std::vector<int64_t> all_lengths(at::IntArrayRef lengths, const Level& level) {
  std::vector<int64_t> all;
  for (auto left = level.batch_size.guard_int(__FILE__, __LINE__); left > 0; --left) {
    all.insert(all.end(), lengths.begin(), lengths.end());
  }
  return all;
}
at::Tensor all_lengths(const at::Tensor& lengths, const Level& level) {
  return all_sequences(lengths, level);
}

void check_targets(const at::Tensor&, at::IntArrayRef) {}
void check_targets(const at::Tensor& targets, const at::Tensor& lengths) {
  TORCH_CHECK(targets.dim() != 1 || holds_for_all(lengths.sum().eq(targets.sym_size(0))),
              "ctc_loss: the lengths of the targets don't add up to the number of targets.");
}

template <class Each>
std::tuple<at::Tensor, at::Tensor> ctc_rule(Level& level, const at::Tensor& log_probs,
                                            const at::Tensor& targets, Each input_lengths,
                                            Each target_lengths, int64_t blank,
                                            bool zero_infinity) {
  check_targets(targets, target_lengths);
  if (level.batch_size == 0) {
    const auto sizes = log_probs.sym_sizes();
    const auto& value = value_of(log_probs, level);
    return {wrap(value.new_empty_symint({0, sizes[1]}), 0, level),
            wrap(value.new_empty_symint({0, sizes[1], sizes[0], 1}), 0, level)};
  }
  const auto [losses, log_alpha] = at::_ctc_loss(
      all_scores(log_probs, level), all_sequences(targets, level),
      all_lengths(input_lengths, level), all_lengths(target_lengths, level), blank, zero_infinity);
  const auto n = log_probs.sym_size(1);
  return {wrap(split_from(losses, 0, level, n), 0, level),
          wrap(split_from(log_alpha, 0, level, n), 0, level)};
}

template <class Each>
at::Tensor ctc_backward_rule(Level& level, const at::Tensor& grad, const at::Tensor& log_probs,
                             const at::Tensor& targets, Each input_lengths, Each target_lengths,
                             const at::Tensor& losses, const at::Tensor& log_alpha, int64_t blank,
                             bool zero_infinity) {
  if (level.batch_size == 0) {
    return at::zeros_like(log_probs);
  }
  const auto result = at::_ctc_loss_backward(
      all_sequences(grad, level), all_scores(log_probs, level), all_sequences(targets, level),
      all_lengths(input_lengths, level), all_lengths(target_lengths, level),
      all_sequences(losses, level), all_sequences(log_alpha, level), blank, zero_infinity);
  return wrap(split_from(result, 1, level, log_probs.sym_size(1)), 0, level);
}

}  // namespace

void register_segments_rules() {
  using at::IntArrayRef;
  using at::Tensor;
  add<at::_ops::segment_reduce>(segment_reduce_rule);
  add<at::_ops::_segment_reduce_backward>(segment_reduce_backward_rule);

  add<at::_ops::_pack_padded_sequence>(pack_padded_sequence_rule);
  add_decomposition<at::_ops::_pack_padded_sequence_backward>(pack_padded_sequence_backward);
  add_decomposition<at::_ops::_pad_packed_sequence>(pad_packed_sequence);

  add<at::_ops::_ctc_loss>(ctc_rule<IntArrayRef>);
  add<at::_ops::_ctc_loss_Tensor>(ctc_rule<const Tensor&>);
  add<at::_ops::_ctc_loss_backward>(ctc_backward_rule<IntArrayRef>);
  add<at::_ops::_ctc_loss_backward_Tensor>(ctc_backward_rule<const Tensor&>);
}

}  // namespace functorch_ext
