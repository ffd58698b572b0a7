// Losses of margins, of which PyTorch has first derivatives of reverse mode alone.
#include "derivatives/given.h"
#include "derivatives/pulled_back.h"
#include "derivatives/reduced.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

// One sample without N as one of N = 1, and its loss.
at::Tensor as_batch(const at::Tensor& tensor, const at::Tensor& scores) {
  return scores.dim() < 2 ? tensor.reshape({1, -1}) : tensor;
}

at::Tensor multi_margin(const at::Tensor& scores, const at::Tensor& target, const at::Scalar& p,
                        const at::Scalar& margin, const OptionalTensor& weight, int64_t reduction) {
  const auto rows = as_batch(scores, scores);
  const auto column = (scores.dim() < 2 ? target.reshape({1}) : target).unsqueeze(1);
  auto excess = at::relu(rows - rows.gather(1, column) + margin);
  if (p.toDouble() == 2) {
    excess = excess * excess;
  }
  if (is_given(weight)) {
    excess = excess * weight->index_select(0, column.squeeze(1)).unsqueeze(1);
  }
  const auto classes = at::arange(rows.size(1), column.options());
  const auto losses = excess.masked_fill(classes == column, 0).mean(1);
  return reduced(scores.dim() < 2 && reduction == at::Reduction::None ? losses.squeeze(0) : losses,
                 reduction);
}

// The targets of a sample are those in front of the first negative one.
std::tuple<at::Tensor, at::Tensor> multilabel_margin(const at::Tensor& scores,
                                                     const at::Tensor& target, int64_t reduction) {
  const auto rows = as_batch(scores, scores);
  const auto labels = as_batch(target, scores);
  const auto is_label = labels.ge(0).cumprod(1, at::kLong);
  const auto columns = labels.clamp_min(0);
  const auto is_target = at::zeros_like(labels).scatter_add(1, columns, is_label).gt(0);
  const auto of_labels = rows.gather(1, columns).unsqueeze(2);
  const auto counts = is_label.gt(0).unsqueeze(2).logical_and(is_target.logical_not().unsqueeze(1));
  const auto excess = at::relu(rows.unsqueeze(1) - of_labels + 1).masked_fill(~counts, 0);
  const auto losses = excess.sum(at::IntArrayRef{1, 2}) / rows.size(1);
  const bool is_one = scores.dim() < 2 && reduction == at::Reduction::None;
  return {reduced(is_one ? losses.squeeze(0) : losses, reduction),
          is_target.to(scores.scalar_type()).reshape_as(target)};
}

at::Tensor multi_margin_backward(const at::Tensor& grad, const at::Tensor& scores,
                                 const at::Tensor& target, const at::Scalar& p,
                                 const at::Scalar& margin, const OptionalTensor& weight,
                                 int64_t reduction) {
  const auto loss = [&](const at::Tensor& x) {
    return multi_margin(x, target, p, margin, weight, reduction);
  };
  return pulled_back(loss, scores, grad, {target, weight.value_or(at::Tensor())});
}

at::Tensor multilabel_margin_backward(const at::Tensor& grad, const at::Tensor& scores,
                                      const at::Tensor& target, int64_t reduction,
                                      const at::Tensor&) {
  const auto loss = [&](const at::Tensor& x) {
    return std::get<0>(multilabel_margin(x, target, reduction));
  };
  return pulled_back(loss, scores, grad, {target});
}

}  // namespace

void register_margins_derivatives() {
  add_computed_when<at::_ops::multi_margin_loss, has_tangents, multi_margin>();
  add_computed_when<at::_ops::multilabel_margin_loss_forward, has_tangents, multilabel_margin>();
  add_computed_when<at::_ops::multi_margin_loss_backward, is_differentiated_here,
                    multi_margin_backward>();
  add_computed_when<at::_ops::multilabel_margin_loss_backward, is_differentiated_here,
                    multilabel_margin_backward>();
}

}  // namespace functorch_ext
