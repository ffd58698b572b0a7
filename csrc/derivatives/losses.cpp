// Losses by their weights and targets, where PyTorch has no derivative: it raises in reverse mode,
// and takes it for zero in forward mode.
#include <tuple>

#include "batching/operators.h"
#include "derivatives/given.h"
#include "derivatives/reduced.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Is one of the arguments at these positions differentiated?
template <size_t... positions>
inline constexpr auto is_differentiated_by = [](const auto&... arguments) {
  const auto all = std::tie(arguments...);
  return any_differentiated(std::get<positions>(all)...);
};

at::Tensor weighted(const at::Tensor& losses, const OptionalTensor& weight) {
  return is_given(weight) ? losses * *weight : losses;
}

at::Tensor cross_entropy(const at::Tensor& self, const at::Tensor& target,
                         const OptionalTensor& weight, int64_t reduction) {
  const auto losses = at::binary_cross_entropy(self, target, {}, at::Reduction::None);
  return reduced(weighted(losses, weight), reduction);
}

at::Tensor cross_entropy_with_logits(const at::Tensor& self, const at::Tensor& target,
                                     const OptionalTensor& weight, const OptionalTensor& pos_weight,
                                     int64_t reduction) {
  const auto of_ones = weighted(target * at::log_sigmoid(self), pos_weight);
  return reduced(weighted(-of_ones - (1 - target) * at::log_sigmoid(-self), weight), reduction);
}

at::Tensor soft_margin(const at::Tensor& self, const at::Tensor& target, int64_t reduction) {
  return reduced(-at::log_sigmoid(target * self), reduction);
}

// (the loss, the weights of the targets that count)
std::tuple<at::Tensor, at::Tensor> likelihood(const at::Tensor& self, const at::Tensor& target,
                                              const OptionalTensor& weight, int64_t reduction,
                                              const c10::SymInt& ignore_index) {
  const int64_t classes = self.dim() == 1 ? 0 : 1;
  const auto counts = target.ne(ignore_index);
  const auto chosen = at::where(counts, target, 0);
  const auto scores = self.gather(classes, chosen.unsqueeze(classes)).squeeze(classes);
  const auto of_targets = weight->index_select(0, chosen.reshape({-1})).reshape_as(target);
  const auto weights = at::where(counts, of_targets, 0);
  const auto losses = at::where(counts, -scores * of_targets, 0);
  if (reduction == at::Reduction::None) {
    return {losses, at::zeros({}, self.options())};
  }
  const auto total = weights.sum();
  return {reduction == at::Reduction::Mean ? losses.sum() / total : losses.sum(), total};
}

}  // namespace

void register_losses_derivatives() {
  using namespace at::_ops;
  add_computed_when<binary_cross_entropy, is_differentiated_by<2>, cross_entropy>();
  add_computed_when<binary_cross_entropy_with_logits, is_differentiated_by<2, 3>,
                    cross_entropy_with_logits>();
  add_computed_when<soft_margin_loss, is_differentiated_by<1>, soft_margin>();
  add_computed_when<nll_loss_forward, is_differentiated_by<2>, likelihood>();
  add_computed_when<nll_loss2d_forward, is_differentiated_by<2>, likelihood>();
}

}  // namespace functorch_ext
