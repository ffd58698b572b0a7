// Losses: computed number by number for all samples, then reduced sample by sample.
#include <ATen/ExpandUtils.h>
#include <ATen/core/Reduction.h>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using at::Reduction::Mean;
using at::Reduction::None;

// Everything but the samples in front, summed or averaged as a loss asks.
at::Tensor reduced(const at::Tensor& losses, int64_t reduction) {
  if (reduction == None || losses.dim() == 1) {
    return losses;
  }
  const auto rows = losses.flatten(1);
  return reduction == Mean ? rows.mean(1) : rows.sum(1);
}

// The gradient of each number of a loss whose physical numbers have `sizes`, from that of the loss.
at::Tensor of_each(const at::Tensor& grad_output, at::SymIntArrayRef sizes, int64_t reduction,
                   const Level& level) {
  const auto grad = aligned(grad_output, static_cast<int64_t>(sizes.size()) - 1, level);
  const auto each = grad.expand_symint(sizes);
  return reduction == Mean ? each / c10::multiply_integers(sizes.slice(1)) : each;
}

// Losses with a target for every number, which broadcast, and their derivatives. The argument
// `reduction` is named by `Operator::dims`.
template <bool is_backward>
struct NumberByNumber {
  template <class Signature>
  struct Family;

  template <class... Parameters>
  struct Family<at::Tensor(Parameters...)> {
    static at::Tensor rule(const Operator<at::Tensor(Parameters...)>& op, Level& level,
                           Parameters... arguments) {
      return apply(op, level, std::index_sequence_for<Parameters...>{}, arguments...);
    }

   private:
    template <size_t... I>
    static at::Tensor apply(const Operator<at::Tensor(Parameters...)>& op, Level& level,
                            std::index_sequence<I...>,
                            const std::remove_reference_t<Parameters>&... arguments) {
      const auto rank = largest_rank(arguments...);
      std::vector<c10::SymInt> sizes(rank + 1, 1);
      sizes[0] = level.batch_size;
      (for_each_tensor(arguments,
                       [&](const at::Tensor& tensor) {
                         const auto both = at::infer_size_symdimvector(
                             sizes, aligned(tensor, rank, level).sym_sizes());
                         sizes.assign(both.begin(), both.end());
                       }),
       ...);
      int64_t reduction = None;
      ((op.dims >> I & 1 ? take(arguments, reduction) : void()), ...);
      bool is_first = true;
      std::tuple<typename Rewritten<Parameters>::type...> physical{
          rewrite<Parameters>(const_cast<std::remove_reference_t<Parameters>&>(arguments),
                              [&](const at::Tensor& tensor) {
                                const bool is_grad = is_backward && std::exchange(is_first, false);
                                return is_grad ? of_each(tensor, sizes, reduction, level)
                                               : aligned(tensor, rank, level).expand_symint(sizes);
                              })...};
      ((op.dims >> I & 1 ? put(std::get<I>(physical), None) : void()), ...);
      const auto result = op.call(static_cast<Parameters>(std::get<I>(physical))...);
      return wrap(is_backward ? result : reduced(result, reduction), 0, level);
    }

    template <class Argument>
    static void take(const Argument& argument, int64_t& reduction) {
      if constexpr (std::is_same_v<Argument, int64_t>) {
        reduction = argument;
      }
    }
    template <class Argument>
    static void put(Argument& argument, int64_t reduction) {
      if constexpr (std::is_same_v<Argument, int64_t>) {
        argument = reduction;
      }
    }
  };
};
template <class Signature>
using Loss = NumberByNumber<false>::Family<Signature>;
template <class Signature>
using LossBackward = NumberByNumber<true>::Family<Signature>;

// The product with a number: on CPUs as a tensor of the same type, which saves a conversion.
at::Tensor times(const at::Tensor& tensor, double factor) {
  return tensor.is_cpu() ? tensor * at::scalar_tensor(factor, tensor.options()) : tensor * factor;
}

bool same_floating_type(const at::Tensor& first, const at::Tensor& second) {
  return first.is_floating_point() && first.scalar_type() == second.scalar_type();
}

// The family's rule, for an operator whose own rule doesn't cover everything.
template <template <class> class Family, class Signature, class... Arguments>
at::Tensor general_loss(Operator<Signature> op, Level& level, Arguments&&... arguments) {
  op.dims = uint64_t{1} << argument_position(op.handle, "reduction");
  return Family<Signature>::rule(op, level, arguments...);
}

// The squared error in few operators: nothing is expanded, and no number divided by itself alone.
at::Tensor squared_error(const Operator<at::_ops::mse_loss::schema>& op, Level& level,
                         const at::Tensor& self, const at::Tensor& target, int64_t reduction) {
  const auto rank = largest_rank(self, target);
  if (reduction == None || rank == 0 || !same_floating_type(self, target)) {
    return general_loss<Loss>(op, level, self, target, reduction);
  }
  const auto rows =
      at::mse_loss(aligned(self, rank, level), aligned(target, rank, level), None).flatten(1);
  const auto count = rows.sym_size(1).maybe_as_int();
  if (reduction == Mean && !count) {
    return wrap(rows.mean(1), 0, level);
  }
  const auto sum = rows.sum(1);
  return wrap(reduction == Mean ? times(sum, 1.0 / static_cast<double>(*count)) : sum, 0, level);
}

at::Tensor squared_error_backward(const Operator<at::_ops::mse_loss_backward::schema>& op,
                                  Level& level, const at::Tensor& grad_output,
                                  const at::Tensor& self, const at::Tensor& target,
                                  int64_t reduction) {
  const auto rank = largest_rank(self, target);
  const auto difference = aligned(self, rank, level) - aligned(target, rank, level);
  auto sizes = difference.sym_sizes();
  if (difference.dim() > rank) {
    sizes = sizes.slice(1);
  }
  const auto count = c10::multiply_integers(sizes).maybe_as_int();
  if (!count || !same_floating_type(self, target) || !same_floating_type(self, grad_output)) {
    return general_loss<LossBackward>(op, level, grad_output, self, target, reduction);
  }
  const auto factor = reduction == Mean ? 2.0 / static_cast<double>(*count) : 2.0;
  return wrap(difference * times(aligned(grad_output, rank, level), factor), 0, level);
}

// Negative log likelihood: what both directions need. The classes are behind (samples, N) or, for
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
      : level(level_), has_n(self.dim() == 2) {
    scores = merged(self);
    classes = merged(target);
  }

  at::Tensor merged(const at::Tensor& tensor) const {
    const auto value = expanded_at_front(tensor, level);
    return has_n ? merge_into(value, 0) : value;
  }
  at::Tensor split(const at::Tensor& result) const {
    return has_n ? split_from(result, 0, level) : result;
  }

  Level& level;
  bool has_n;
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
    return {wrap(losses, 0, level), wrap(at::zeros_like(losses), 0, level)};
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
  const auto result = at::zeros_like(targets.scores, at::MemoryFormat::Contiguous)
                          .scatter(targets.classes, targets.indices.unsqueeze(targets.classes),
                                   each.unsqueeze(targets.classes));
  return wrap(result, 0, level);
}

// The margin losses of (N, classes): the samples join N, or are N where there is none. A number is
// a vector of one class.
struct Margin {
  Margin(const at::Tensor& self, Level& level_) : has_n(self.dim() == 2), level(level_) {
    TORCH_CHECK(self.dim() <= 2, "expected a vector or a matrix of scores, got rank ", self.dim());
  }

  at::Tensor merged(const at::Tensor& tensor) const {
    const auto value = expanded_at_front(tensor, level);
    return has_n ? merge_into(value, 0) : value.dim() == 1 ? value.unsqueeze(1) : value;
  }
  // One class for each row; one vector may come with a class of shape (1,).
  at::Tensor merged_classes(const at::Tensor& target) const {
    return merged(target).flatten();
  }
  at::Tensor split(const at::Tensor& result) const {
    return has_n ? split_from(result, 0, level) : result;
  }
  at::Tensor loss(const at::Tensor& each, int64_t reduction) const {
    return wrap(reduced(split(each), reduction), 0, level);
  }
  at::Tensor like(const at::Tensor& tensor, const at::Tensor& result) const {
    return wrap(tensor.dim() == 0 ? result.squeeze(1) : split(result), 0, level);
  }
  at::Tensor grad_of_each(const at::Tensor& grad_output, const at::Tensor& self,
                          int64_t reduction) const {
    std::vector<c10::SymInt> sizes = {level.batch_size};
    if (has_n) {
      sizes.push_back(self.sym_size(0));
    }
    return of_each(grad_output, sizes, reduction, level).flatten();
  }

  bool has_n;
  Level& level;
};

// The weights of the classes: a factor of each row's loss, where they differ between samples.
struct ClassWeights {
  ClassWeights(const std::optional<at::Tensor>& given, const at::Tensor& target, const Margin& loss)
      : weight(given) {
    if (given && given->defined() && is_batched_at(*given, loss.level)) {
      const auto rows = expanded_at_front(target, loss.level);
      const auto found =
          at_front(*given, loss.level).gather(1, rows.dim() == 1 ? rows.unsqueeze(1) : rows);
      factor = found.flatten();
      weight = std::nullopt;
    } else if (given && given->defined()) {
      weight = value_of(*given, loss.level);
    }
  }
  at::Tensor times(const at::Tensor& each) const {
    return factor.defined() ? each * factor : each;
  }

  std::optional<at::Tensor> weight;
  at::Tensor factor;
};

at::Tensor multi_margin_rule(Level& level, const at::Tensor& self, const at::Tensor& target,
                             const at::Scalar& p, const at::Scalar& margin,
                             const std::optional<at::Tensor>& weight, int64_t reduction) {
  const Margin loss(self, level);
  const ClassWeights weights(weight, target, loss);
  const auto each = at::multi_margin_loss(loss.merged(self), loss.merged_classes(target), p, margin,
                                          weights.weight, None);
  return loss.loss(weights.times(each), reduction);
}

at::Tensor multi_margin_backward_rule(Level& level, const at::Tensor& grad_output,
                                      const at::Tensor& self, const at::Tensor& target,
                                      const at::Scalar& p, const at::Scalar& margin,
                                      const std::optional<at::Tensor>& weight, int64_t reduction) {
  const Margin loss(self, level);
  const ClassWeights weights(weight, target, loss);
  const auto grad = weights.times(loss.grad_of_each(grad_output, self, reduction));
  const auto result = at::multi_margin_loss_backward(
      grad, loss.merged(self), loss.merged_classes(target), p, margin, weights.weight, None);
  return loss.like(self, result);
}

std::tuple<at::Tensor, at::Tensor> multilabel_margin_rule(Level& level, const at::Tensor& self,
                                                          const at::Tensor& target,
                                                          int64_t reduction) {
  const Margin loss(self, level);
  const auto [each, is_target] =
      at::multilabel_margin_loss_forward(loss.merged(self), loss.merged(target), None);
  return {loss.loss(each, reduction), loss.like(target, is_target)};
}

at::Tensor multilabel_margin_backward_rule(Level& level, const at::Tensor& grad_output,
                                           const at::Tensor& self, const at::Tensor& target,
                                           int64_t reduction, const at::Tensor& is_target) {
  const Margin loss(self, level);
  const auto grad = loss.grad_of_each(grad_output, self, reduction);
  const auto result = at::multilabel_margin_loss_backward(
      grad, loss.merged(self), loss.merged(target), None, loss.merged(is_target));
  return loss.like(self, result);
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

void register_losses_rules() {
  add<at::_ops::mse_loss>(squared_error);
  add<at::_ops::smooth_l1_loss, Loss>({"reduction"});
  add<at::_ops::huber_loss, Loss>({"reduction"});
  add<at::_ops::soft_margin_loss, Loss>({"reduction"});
  add<at::_ops::binary_cross_entropy, Loss>({"reduction"});
  add<at::_ops::binary_cross_entropy_with_logits, Loss>({"reduction"});
  add<at::_ops::mse_loss_backward>(squared_error_backward);
  add<at::_ops::smooth_l1_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::huber_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::soft_margin_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::binary_cross_entropy_backward, LossBackward>({"reduction"});

  add<at::_ops::nll_loss_forward>(nll_rule);
  add<at::_ops::nll_loss2d_forward>(nll_rule);
  add<at::_ops::nll_loss_backward>(nll_backward_rule);
  add<at::_ops::nll_loss2d_backward>(nll_backward_rule);

  add_decomposition<at::_ops::cross_entropy_loss>(smoothed_cross_entropy);

  add<at::_ops::multi_margin_loss>(multi_margin_rule);
  add<at::_ops::multi_margin_loss_backward>(multi_margin_backward_rule);
  add<at::_ops::multilabel_margin_loss_forward>(multilabel_margin_rule);
  add<at::_ops::multilabel_margin_loss_backward>(multilabel_margin_backward_rule);
}

}  // namespace functorch_ext
