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
at::Tensor squared_error_rule(const Operator<at::_ops::mse_loss::schema>& op, Level& level,
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

at::Tensor squared_error_backward_rule(const Operator<at::_ops::mse_loss_backward::schema>& op,
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

// The margin losses of (N, classes): the samples join N, or are N where there is none. A number is
// a vector of one class.
struct Margin {
  Margin(const at::Tensor& self, Level& level_) : has_n(self.dim() == 2), level(level_) {
    TORCH_CHECK(self.dim() <= 2, "expected a vector or a matrix of scores, got rank ", self.dim());
    n = has_n ? self.sym_size(0) : c10::SymInt(1);
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
    return has_n ? split_from(result, 0, level, n) : result;
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
  c10::SymInt n;
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

}  // namespace

void register_losses_rules() {
  add<at::_ops::mse_loss>(squared_error_rule);
  add<at::_ops::smooth_l1_loss, Loss>({"reduction"});
  add<at::_ops::huber_loss, Loss>({"reduction"});
  add<at::_ops::soft_margin_loss, Loss>({"reduction"});
  add<at::_ops::binary_cross_entropy, Loss>({"reduction"});
  add<at::_ops::binary_cross_entropy_with_logits, Loss>({"reduction"});
  add<at::_ops::mse_loss_backward>(squared_error_backward_rule);
  add<at::_ops::smooth_l1_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::huber_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::soft_margin_loss_backward, LossBackward>({"reduction"});
  add<at::_ops::binary_cross_entropy_backward, LossBackward>({"reduction"});

  add<at::_ops::multi_margin_loss>(multi_margin_rule);
  add<at::_ops::multi_margin_loss_backward>(multi_margin_backward_rule);
  add<at::_ops::multilabel_margin_loss_forward>(multilabel_margin_rule);
  add<at::_ops::multilabel_margin_loss_backward>(multilabel_margin_backward_rule);
}

}  // namespace functorch_ext
