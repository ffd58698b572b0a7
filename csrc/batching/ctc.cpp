// Connectionist temporal classification: the loss of sequences of different lengths.
#include "batching/families.h"
#include "batching/lengths.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"

namespace functorch_ext {

namespace {

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

// PyTorch's kernel looks up the scores of a class that doesn't exist in those of another sequence.
// What pads a target may be anything.
void check_labels(const at::Tensor& targets, const at::Tensor& lengths,
                  const c10::SymInt& classes) {
  auto valid = targets.ge(0).logical_and(targets.lt(classes));
  if (targets.dim() == 2) {
    const auto places = at::arange(targets.sym_size(1), targets.options().dtype(at::kLong));
    valid = valid.logical_or(places.ge(lengths.unsqueeze(1)));
  }
  TORCH_CHECK_INDEX(holds_for_all(valid), "ctc_loss: expected targets from 0 to ", classes - 1,
                    ", the classes of log_probs, but got one out of range");
}

template <class Each>
std::tuple<at::Tensor, at::Tensor> ctc_rule(Level& level, const at::Tensor& log_probs,
                                            const at::Tensor& targets, Each input_lengths,
                                            Each target_lengths, int64_t blank,
                                            bool zero_infinity) {
  TORCH_CHECK(log_probs.dim() == 3, "ctc_loss: expected log_probs (time, N, classes), but got ",
              log_probs.sym_sizes());
  check_targets(targets, target_lengths);
  check_labels(targets, lengths_as_tensor(target_lengths, targets), log_probs.sym_size(2));
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

// What PyTorch makes it of, but for the choice of cuDNN's kernel, which reads the targets' values.
template <class Each>
std::optional<at::Tensor> ctc_loss_decomposition(Level&, const at::Tensor& log_probs,
                                                 const at::Tensor& targets, Each input_lengths,
                                                 Each target_lengths, int64_t blank,
                                                 int64_t reduction, bool zero_infinity) {
  if (!log_probs.is_cuda()) {
    return std::nullopt;
  }
  const bool is_one_sequence = log_probs.dim() == 2;
  auto losses = std::get<0>(at::_ctc_loss(is_one_sequence ? log_probs.unsqueeze(1) : log_probs,
                                          is_one_sequence ? targets.unsqueeze(0) : targets,
                                          input_lengths, target_lengths, blank, zero_infinity));
  if (zero_infinity) {
    losses = losses.masked_fill(losses.isinf(), 0);
  }
  switch (reduction) {
    case at::Reduction::Mean: {
      const auto lengths = lengths_as_tensor(target_lengths, targets).to(losses.options());
      return (losses / lengths.clamp_min(1)).mean();
    }
    case at::Reduction::Sum:
      return losses.sum();
    default:
      return is_one_sequence ? losses.squeeze(0) : losses;
  }
}

}  // namespace

void register_ctc_rules() {
  using at::IntArrayRef;
  using at::Tensor;
  // PyTorch reads beyond the scores where a class doesn't exist.
  add<at::_ops::_ctc_loss>(ctc_rule<IntArrayRef>).unchecked();
  add<at::_ops::_ctc_loss_Tensor>(ctc_rule<const Tensor&>).unchecked();
  add_decomposition<at::_ops::ctc_loss_IntList>(ctc_loss_decomposition<IntArrayRef>);
  add_decomposition<at::_ops::ctc_loss_Tensor>(ctc_loss_decomposition<const Tensor&>);
  add<at::_ops::_ctc_loss_backward>(ctc_backward_rule<IntArrayRef>);
  add<at::_ops::_ctc_loss_backward_Tensor>(ctc_backward_rule<const Tensor&>);
}

}  // namespace functorch_ext
