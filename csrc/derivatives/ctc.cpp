// Connectionist temporal classification, of which PyTorch has first derivatives of reverse mode
// alone: the forward recursion, one step of time after another.
#include <limits>

#include "batching/lengths.h"
#include "derivatives/pulled_back.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

// The logarithm of no probability, by which one can calculate: derivatives of sums of infinities
// are no numbers.
constexpr double nothing = -1e30;

// Targets as (N, longest): given so, or one after another.
at::Tensor rows_of_targets(const at::Tensor& targets, const at::Tensor& lengths) {
  if (targets.dim() == 2) {
    return targets.to(at::kLong);
  }
  const auto count = targets.size(0);
  if (count == 0) {
    return targets.new_zeros({lengths.size(0), 0}, at::kLong);
  }
  const auto starts = (lengths.cumsum(0) - lengths).unsqueeze(1);
  const auto places = starts + at::arange(count, lengths.options());
  return targets.to(at::kLong).index({places.clamp_max(count - 1)});
}

// logarithms[n, place] for one place each; nothing where that is negative.
at::Tensor at_place(const at::Tensor& logarithms, const at::Tensor& place) {
  return logarithms.gather(1, place.clamp_min(0).unsqueeze(1))
      .squeeze(1)
      .masked_fill(place < 0, nothing);
}

at::Tensor shifted(const at::Tensor& logarithms, int64_t by) {
  const auto width = logarithms.size(1);
  return at::constant_pad_nd(logarithms, {by, 0}, nothing).slice(1, 0, width);
}

template <class Lengths>
std::tuple<at::Tensor, at::Tensor> ctc_loss(const at::Tensor& log_probs, const at::Tensor& targets,
                                            Lengths input_lengths, Lengths target_lengths,
                                            int64_t blank, bool zero_infinity) {
  const auto times = lengths_as_tensor(input_lengths, log_probs).to(at::kLong);
  const auto lengths = lengths_as_tensor(target_lengths, log_probs).to(at::kLong);
  const auto labels = rows_of_targets(targets, lengths);
  // Blanks around all labels: at even places, and the labels at odd ones.
  const auto n = log_probs.size(1);
  const auto places = at::arange(labels.size(1), labels.options());
  const auto known = labels.masked_fill(places >= lengths.unsqueeze(1), blank);
  const auto blanks = at::full_like(known, blank);
  const auto pairs = at::stack({blanks, known}, 2).flatten(1);
  const auto path = at::cat({pairs, pairs.new_full({n, 1}, blank)}, 1);
  // A blank between different labels may be left out.
  const auto before = at::constant_pad_nd(path, {2, 0}, blank).slice(1, 0, path.size(1));
  const auto must_not_skip = path.eq(blank).logical_or(path.eq(before));

  const auto emitted = [&](int64_t time) { return log_probs.select(0, time).gather(1, path); };
  const auto steps = log_probs.size(0);
  const auto is_start = at::arange(path.size(1), labels.options()).lt(2);
  auto alpha = steps > 0 ? emitted(0).masked_fill(is_start.logical_not(), nothing)
                         : log_probs.new_full({n, path.size(1)}, nothing);
  std::vector<at::Tensor> all = {alpha};
  for (int64_t time = 1; time < steps; ++time) {
    const auto skipped = shifted(alpha, 2).masked_fill(must_not_skip, nothing);
    const auto next = at::logsumexp(at::stack({alpha, shifted(alpha, 1), skipped}), {0});
    const auto goes_on = times.gt(time).unsqueeze(1);
    alpha = at::where(goes_on, next + emitted(time), alpha);
    all.push_back(alpha);
  }
  const auto last = lengths * 2;
  auto loss = -at::logaddexp(at_place(alpha, last), at_place(alpha, last - 1));
  loss = loss.masked_fill(loss > -nothing / 2,
                          zero_infinity ? 0 : std::numeric_limits<double>::infinity());
  return {loss, at::stack(all, 1).detach()};
}

std::vector<at::Tensor> tensors_of(const at::Tensor& targets, at::IntArrayRef) {
  return {targets};
}
std::vector<at::Tensor> tensors_of(const at::Tensor& targets, const at::Tensor& lengths) {
  return {targets, lengths};
}

template <class Lengths>
at::Tensor ctc_loss_backward(const at::Tensor& grad, const at::Tensor& log_probs,
                             const at::Tensor& targets, Lengths input_lengths,
                             Lengths target_lengths, const at::Tensor&, const at::Tensor&,
                             int64_t blank, bool zero_infinity) {
  const auto losses = [&](const at::Tensor& x) {
    return std::get<0>(
        ctc_loss<Lengths>(x, targets, input_lengths, target_lengths, blank, zero_infinity));
  };
  return pulled_back(losses, log_probs, grad, tensors_of(targets, target_lengths));
}

}  // namespace

void register_ctc_derivatives() {
  using at::IntArrayRef;
  using at::Tensor;
  add_computed_when<at::_ops::_ctc_loss, has_tangents, ctc_loss<IntArrayRef>>();
  add_computed_when<at::_ops::_ctc_loss_Tensor, has_tangents, ctc_loss<const Tensor&>>();
  add_computed_when<at::_ops::_ctc_loss_backward, is_differentiated_here,
                    ctc_loss_backward<IntArrayRef>>();
  add_computed_when<at::_ops::_ctc_loss_backward_Tensor, is_differentiated_here,
                    ctc_loss_backward<const Tensor&>>();
}

}  // namespace functorch_ext
