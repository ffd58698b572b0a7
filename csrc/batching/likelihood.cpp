// The negative log likelihood, and cross entropy.
#include <ATen/core/Reduction.h>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using at::Reduction::Mean;
using at::Reduction::None;

// What both directions need. The classes are behind (samples, N) or, for
// one vector, behind the samples.
struct Targets {
  Targets(const at::Tensor& self, const at::Tensor& target, const std::optional<at::Tensor>& weight,
          const c10::SymInt& ignore_index, const Level& level)
      : scores(expanded_at_front(self, level)), classes(self.dim() == 1 ? 1 : 2) {
    const auto given = expanded_at_front(target, level);
    const auto counted = given.ne(ignore_index);
    indices = at::where(counted, given, 0).to(at::kLong);
    weights = counted.to(scores.scalar_type());
    if (weight && weight->defined()) {
      const auto flat = given.dim() == 1 ? indices.unsqueeze(1) : indices.flatten(1);
      const auto found = expanded_at_front(*weight, level).gather(1, flat);
      weights = weights * found.reshape_symint(indices.sym_sizes());
    }
  }

  at::Tensor scores;
  int64_t classes;
  at::Tensor indices;  // 0 where the target is ignored
  at::Tensor weights;  // 0 there, too
};

at::Tensor sum_by_sample(const at::Tensor& value) {
  return value.dim() == 1 ? value : value.flatten(1).sum(1);
}

// The operator as it is, for scores (samples, N) of classes, which are N alone where one sample is
// a vector of scores: one number a row.
struct Rows {
  Rows(const at::Tensor& self, const at::Tensor& target, Level& level_)
      : level(level_), has_n(self.dim() == 2), n(has_n ? self.sym_size(0) : c10::SymInt(1)) {
    scores = merged(self);
    classes = merged(target);
  }

  at::Tensor merged(const at::Tensor& tensor) const {
    const auto value = expanded_at_front(tensor, level);
    return has_n ? merge_into(value, 0) : value;
  }
  at::Tensor split(const at::Tensor& result) const {
    return has_n ? split_from(result, 0, level, n) : result;
  }

  Level& level;
  bool has_n;
  c10::SymInt n;
  at::Tensor scores;
  at::Tensor classes;
};

// Is this the form of `Rows`, without weights?
bool is_plain_nll(const at::Tensor& self, const at::Tensor& target,
                  const std::optional<at::Tensor>& weight) {
  return (self.dim() == 1 || self.dim() == 2) && target.dim() == self.dim() - 1 &&
         !(weight && weight->defined());
}

std::tuple<at::Tensor, at::Tensor> nll_of_rows(Level& level, const at::Tensor& self,
                                               const at::Tensor& target, int64_t reduction,
                                               const c10::SymInt& ignore_index) {
  const Rows rows(self, target, level);
  const auto losses = rows.split(
      std::get<0>(at::nll_loss_forward_symint(rows.scores, rows.classes, {}, None, ignore_index)));
  if (reduction == None) {
    return {wrap(losses, 0, level),
            wrap(losses.new_zeros_symint(c10::SymIntArrayRef(&level.batch_size, 1)), 0, level)};
  }
  const auto counted = rows.split(rows.classes.ne(ignore_index).to(losses.scalar_type()));
  const auto total = sum_by_sample(counted);
  const auto sum = sum_by_sample(losses);
  return {wrap(reduction == Mean ? sum / total : sum, 0, level), wrap(total, 0, level)};
}

at::Tensor nll_of_rows_backward(Level& level, const at::Tensor& grad_output, const at::Tensor& self,
                                const at::Tensor& target, int64_t reduction,
                                const c10::SymInt& ignore_index, const at::Tensor& total_weight) {
  const Rows rows(self, target, level);
  auto grad = aligned(grad_output, target.dim(), level);
  if (reduction == Mean) {
    grad = grad / aligned(total_weight, target.dim(), level);
  }
  grad = grad.expand_symint(physical_sizes(target.sym_sizes(), level)).flatten();
  const auto result = at::nll_loss_backward_symint(grad, rows.scores, rows.classes, {}, None,
                                                   ignore_index, at::zeros({}, grad.options()));
  return wrap(rows.split(result), 0, level);
}

std::tuple<at::Tensor, at::Tensor> nll_rule(Level& level, const at::Tensor& self,
                                            const at::Tensor& target,
                                            const std::optional<at::Tensor>& weight,
                                            int64_t reduction, c10::SymInt ignore_index) {
  if (self.dim() == 1 && target.dim() == 1 && target.sym_size(0) == 1) {  // forward alone
    return nll_rule(level, self, target.squeeze(0), weight, reduction, std::move(ignore_index));
  }
  if (is_plain_nll(self, target, weight)) {
    return nll_of_rows(level, self, target, reduction, ignore_index);
  }
  const Targets targets(self, target, weight, ignore_index, level);
  const auto found =
      targets.scores.gather(targets.classes, targets.indices.unsqueeze(targets.classes))
          .squeeze(targets.classes);
  // Not a product: an ignored target may have a score of -inf.
  const auto losses = at::where(targets.weights == 0, 0, -found * targets.weights);
  const auto total = sum_by_sample(targets.weights);
  if (reduction == None) {
    return {wrap(losses, 0, level), wrap(at::zeros_like(total), 0, level)};
  }
  const auto sum = sum_by_sample(losses);
  return {wrap(reduction == Mean ? sum / total : sum, 0, level), wrap(total, 0, level)};
}

at::Tensor nll_backward_rule(Level& level, const at::Tensor& grad_output, const at::Tensor& self,
                             const at::Tensor& target, const std::optional<at::Tensor>& weight,
                             int64_t reduction, c10::SymInt ignore_index,
                             const at::Tensor& total_weight) {
  if (is_plain_nll(self, target, weight)) {
    return nll_of_rows_backward(level, grad_output, self, target, reduction, ignore_index,
                                total_weight);
  }
  const Targets targets(self, target, weight, ignore_index, level);
  auto grad = aligned(grad_output, target.dim(), level);
  if (reduction == Mean) {
    grad = grad / aligned(total_weight, target.dim(), level);
  }
  const auto each = at::where(targets.weights == 0, 0, -grad * targets.weights);
  auto result = at::zeros_like(targets.scores, at::MemoryFormat::Contiguous);
  const auto indices = targets.indices.unsqueeze(targets.classes);
  const auto numbers = each.unsqueeze(targets.classes);
  // In place where no derivative and no vmap outside of it could miss that: without another copy.
  if (is_readable(result) && is_readable(numbers) && is_readable(indices)) {
    result.scatter_(targets.classes, indices, numbers);
  } else {
    result = result.scatter(targets.classes, indices, numbers);
  }
  return wrap(result, 0, level);
}

// Cross entropy with smoothed labels. PyTorch's form picks the targets that count by a mask; here
// the others weigh nothing.
std::optional<at::Tensor> smoothed_cross_entropy(Level&, const at::Tensor& self,
                                                 const at::Tensor& target,
                                                 const std::optional<at::Tensor>& weight,
                                                 int64_t reduction, c10::SymInt ignore_index,
                                                 double label_smoothing) {
  if (label_smoothing == 0 || self.sym_sizes() == target.sym_sizes()) {
    return std::nullopt;
  }
  const int64_t class_dim = self.dim() == 1 ? 0 : 1;
  const auto classes = self.sym_size(class_dim);
  const bool weighted = weight && weight->defined();
  const auto scores = at::log_softmax(self, class_dim);
  const auto likelihood = at::nll_loss_nd_symint(scores, target, weight, reduction, ignore_index);
  const auto counts = target.ne(ignore_index);
  auto weighted_scores = scores;
  if (weighted) {
    auto factor = *weight;
    for (auto behind = self.dim() - class_dim - 1; behind > 0; --behind) {
      factor = factor.unsqueeze(-1);
    }
    weighted_scores = scores * factor;
  }
  auto smooth = at::where(counts, -weighted_scores.sum(class_dim), 0);
  if (reduction == Mean) {
    const auto chosen = at::where(counts, target, 0);
    const auto each = weighted ? weight->index({chosen}) : at::ones({}, scores.options());
    smooth = smooth.sum() / at::where(counts, each, 0).sum();
  } else if (reduction != None) {
    smooth = smooth.sum();
  }
  return likelihood * (1 - label_smoothing) + smooth * (label_smoothing / classes);
}

}  // namespace

void register_likelihood_rules() {
  add<at::_ops::nll_loss_forward>(nll_rule);
  add<at::_ops::nll_loss2d_forward>(nll_rule);
  add<at::_ops::nll_loss_backward>(nll_backward_rule);
  add<at::_ops::nll_loss2d_backward>(nll_backward_rule);
  add_decomposition<at::_ops::cross_entropy_loss>(smoothed_cross_entropy);
}

}  // namespace functorch_ext
