// Layers that draw: dropout, and activations whose slopes are random.
#include "batching/operators.h"
#include "batching/random.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using Generator = std::optional<at::Generator>;

std::tuple<at::Tensor, at::Tensor> native_dropout_rule(
    const Operator<at::_ops::native_dropout::schema>& op, Level& level, const at::Tensor& input,
    double p, std::optional<bool> train) {
  const bool random = train.value_or(true) && p > 0;
  if (!random) {
    auto [output, mask] = op.call(at_front(input, level), p, train);
    const auto bdim = is_batched_at(input, level) ? 0 : no_bdim;
    return {wrap(output, bdim, level), wrap(mask, bdim, level)};
  }
  if (!draws_same(op, level)) {
    auto [output, mask] = op.call(expanded_at_front(input, level), p, train);
    return {wrap(output, 0, level), wrap(mask, 0, level)};
  }
  const auto ones = at::ones_like(empty_sample(input, level));
  auto [scale, mask] = op.call(ones, p, train);
  const auto output = at::mul(at_front(input, level), scale);
  return {wrap(output, is_batched_at(input, level) ? 0 : no_bdim, level),
          wrap(mask, no_bdim, level)};
}

// The slope of each negative element is drawn; `noise` tells it, with 1 for the other elements, to
// the derivative formula.
at::Tensor draw_slopes(const at::Tensor& self, const at::Scalar& lower, const at::Scalar& upper,
                       const Generator& generator, bool same, Level& level) {
  const auto value = at_front(self, level);
  // Not filled in place: an outer vmap may draw as well.
  const auto sizes = same ? self.sym_sizes().vec() : physical_sizes(self.sym_sizes(), level);
  const auto width = upper.toDouble() - lower.toDouble();
  const auto slopes =
      at::rand_symint(sizes, generator, value_of(self, level).options()) * width + lower;
  return at::where(at::le(value, 0), slopes, at::ones({}, value.options()));
}

void tell_noise(const at::Tensor& noise, const at::Tensor& slopes, bool batched, Level& level) {
  if (is_batched_at(noise, level)) {
    at_front(noise, level).copy_(slopes);
  } else if (auto* wrapper = wrapper_at(noise, level)) {
    wrapper->set_value(slopes, batched ? 0 : no_bdim);
  }
}

at::Tensor rrelu_rule(const Operator<at::_ops::rrelu_with_noise::schema>& op, Level& level,
                      const at::Tensor& self, at::Tensor& noise, const at::Scalar& lower,
                      const at::Scalar& upper, bool training, Generator generator) {
  const auto value = at_front(self, level);
  if (!training) {
    return at::leaky_relu(self, (lower.toDouble() + upper.toDouble()) / 2);
  }
  const bool same = draws_same(op, level);
  const bool batched = !same || is_batched_at(self, level);
  const auto slopes = draw_slopes(self, lower, upper, generator, same, level);
  tell_noise(noise, slopes, batched, level);
  return wrap(at::mul(value, slopes), batched ? 0 : no_bdim, level);
}

// Out of place, the noise is a result.
std::tuple<at::Tensor, at::Tensor> rrelu_functional_rule(
    const Operator<at::_ops::rrelu_with_noise_functional::schema>& op, Level& level,
    const at::Tensor& self, const at::Tensor& noise, const at::Scalar& lower,
    const at::Scalar& upper, bool training, Generator generator) {
  if (!training) {
    return {at::leaky_relu(self, (lower.toDouble() + upper.toDouble()) / 2), noise.clone()};
  }
  const bool same = draws_same(op, level);
  const auto bdim = same && !is_batched_at(self, level) ? no_bdim : 0;
  const auto slopes = draw_slopes(self, lower, upper, generator, same, level);
  return {wrap(at::mul(at_front(self, level), slopes), bdim, level), wrap(slopes, bdim, level)};
}

at::Tensor& rrelu_in_place_rule(const Operator<at::_ops::rrelu_with_noise_::schema>& op,
                                Level& level, at::Tensor& self, at::Tensor& noise,
                                const at::Scalar& lower, const at::Scalar& upper, bool training,
                                Generator generator) {
  auto value = at_front(self, level);
  if (!training) {
    at::leaky_relu_(value, (lower.toDouble() + upper.toDouble()) / 2);
    return self;
  }
  const bool same = draws_same(op, level);
  if (!same && !is_batched_at(self, level)) {
    raise_shared_target(op.handle);
  }
  const auto slopes = draw_slopes(self, lower, upper, generator, same, level);
  tell_noise(noise, slopes, is_batched_at(self, level), level);
  value.mul_(slopes);
  return self;
}

}  // namespace

void register_dropout_rules() {
  add<at::_ops::native_dropout>(native_dropout_rule);
  add<at::_ops::rrelu_with_noise>(rrelu_rule);
  add<at::_ops::rrelu_with_noise_>(rrelu_in_place_rule);
  add<at::_ops::rrelu_with_noise_functional>(rrelu_functional_rule);
  add<at::_ops::rrelu_with_noise_backward, Pointwise>();
}

}  // namespace functorch_ext
