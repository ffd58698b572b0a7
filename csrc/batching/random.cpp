// Random operators under vmap's randomness=. 'different': the operator is called once with all
// samples, so each gets draws of its own. 'same': it is called for one sample, and all share that.
#include "batching/random.h"

#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/below_all_levels.h"
#include "engine/boxed.h"
#include "engine/repeated_draws.h"

namespace functorch_ext {

namespace {

template <class... Arguments>
bool any_batched(const Level& level, const Arguments&... arguments) {
  return (is_batched_at(arguments, level) || ...);
}

// A tracer would record the draws, but not that the generator is wound back.
template <class... Arguments>
bool is_traced(const Arguments&... arguments) {
  constexpr c10::DispatchKeySet python({c10::DispatchKey::Python});
  bool traced = c10::impl::tls_local_dispatch_key_set().included_.has_any(python);
  const auto look = [&](const at::Tensor& tensor) {
    traced = traced || below_all_levels(tensor).key_set().has_any(python);
  };
  (for_each_tensor(arguments, look), ...);
  return traced;
}

// Where parameters differ between samples, equal draws are those from one state of the generator:
// what each sample would draw in a loop that starts with the same seed each time.
template <class... Parameters>
at::Tensor same_for_each(const Operator<at::Tensor(Parameters...)>& op, Level& level,
                         std::type_identity_t<Parameters>... arguments) {
  if (is_traced(arguments...)) {
    raise_same_of_batched(op.handle);
  }
  warn_of_loop(op.handle);
  const auto samples = level.batch_size.guard_int(__FILE__, __LINE__);
  std::vector<at::Tensor> draws;
  RepeatedDraws repeated;
  // Without samples, one of ones tells the shape.
  for (int64_t sample = 0; sample < std::max<int64_t>(samples, 1); ++sample) {
    repeated.rewind();
    draws.push_back(call_rewritten<at::Tensor, Parameters...>(
        op.call,
        [&](const at::Tensor& tensor) {
          const auto& value = value_of(tensor, level);
          if (!is_batched_at(tensor, level)) {
            return value;
          }
          return samples == 0 ? value.new_ones_symint(tensor.sym_sizes())
                              : value.select(bdim_of(tensor, level), sample);
        },
        static_cast<Parameters>(arguments)...));
  }
  return wrap(at::stack(draws).narrow(0, 0, samples), 0, level);
}

// Channels-last formats are for values of one rank only.
template <class Argument>
Argument without_channels_last(Argument argument) {
  if constexpr (std::is_same_v<std::remove_cv_t<std::remove_reference_t<Argument>>,
                               std::optional<at::MemoryFormat>>) {
    const bool channels_last =
        argument == at::MemoryFormat::ChannelsLast || argument == at::MemoryFormat::ChannelsLast3d;
    return channels_last ? std::optional<at::MemoryFormat>() : argument;
  } else {
    return argument;
  }
}

// Of the first argument only the shape matters: rand_like(x), bernoulli_rule(x, p).
template <class Signature>
struct LikeSelf;

template <class... Rest>
struct LikeSelf<at::Tensor(const at::Tensor&, Rest...)> {
  using Signature = at::Tensor(const at::Tensor&, Rest...);
  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& self,
                         Rest... rest) {
    if (draws_same(op, level)) {
      return wrap(op.call(empty_sample(self, level), rest...), no_bdim, level);
    }
    return wrap(op.call(expanded_at_front(self, level), without_channels_last<Rest>(rest)...), 0,
                level);
  }
};

// randint_like(x, bound). Where the bound differs between samples, a uniform number is scaled by it
// (53 random bits, as PyTorch's own draws in floating point have).
template <class Signature>
struct LikeSelfBounded;

template <class... Rest>
struct LikeSelfBounded<at::Tensor(const at::Tensor&, const at::Tensor&, Rest...)> {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, Rest...);
  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& self,
                         const at::Tensor& bound, Rest... rest) {
    const bool same = draws_same(op, level);
    if (is_batched_at(bound, level)) {
      if (same) {
        return same_for_each(op, level, self, bound, rest...);
      }
      const auto arguments = std::make_tuple(rest...);
      const auto dtype = std::get<std::optional<at::ScalarType>>(arguments);
      std::optional<at::Generator> generator;
      if constexpr ((std::is_same_v<Rest, std::optional<at::Generator>> || ...)) {
        generator = std::get<std::optional<at::Generator>>(arguments);
      }
      const auto uniform = at::rand_symint(physical_sizes(self.sym_sizes(), level), generator,
                                           value_of(self, level).options().dtype(at::kDouble));
      const auto drawn = at::mul(uniform, aligned(bound.reshape({}), self.dim(), level)).floor();
      return wrap(drawn.to(dtype.value_or(self.scalar_type())), 0, level);
    }
    const auto like = same ? empty_sample(self, level) : expanded_at_front(self, level);
    return wrap(op.call(like, value_of(bound, level), without_channels_last<Rest>(rest)...),
                same ? no_bdim : 0, level);
  }
};

// In place, from parameters that are numbers: uniform_, normal_, ...
template <class Signature>
struct Fill;

template <class... Rest>
struct Fill<at::Tensor&(at::Tensor&, Rest...)> {
  using Signature = at::Tensor&(at::Tensor&, Rest...);
  static at::Tensor& rule(const Operator<Signature>& op, Level& level, at::Tensor& self,
                          Rest... rest) {
    const bool same = draws_same(op, level);
    auto value = at_front(self, level);
    if (!is_batched_at(self, level)) {
      if (!same) {
        raise_shared_target(op.handle);
      }
      op.call(value, rest...);
    } else if (same) {
      auto draw = empty_sample(self, level);
      op.call(draw, rest...);
      value.copy_(draw);
    } else {
      op.call(value, rest...);
    }
    return self;
  }
};

// Each draw depends on the parameters, which have any number of leading dimensions.
template <class Signature>
struct OfParameters;

template <class... Parameters>
struct OfParameters<at::Tensor(Parameters...)> {
  using Signature = at::Tensor(Parameters...);
  static at::Tensor rule(const Operator<Signature>& op, Level& level, Parameters... arguments) {
    bool batched = false;
    (for_each_tensor(
         arguments,
         [&](const at::Tensor& tensor) { batched = batched || is_batched_at(tensor, level); }),
     ...);
    if (draws_same(op, level)) {
      if (batched) {
        return same_for_each(op, level, arguments...);
      }
      return compute_unbatched<at::Tensor, Parameters...>(op, level, arguments...);
    }
    return draw(op, level, arguments...);
  }

  // The parameters broadcast against each other, all with the samples in front.
  static at::Tensor draw(const Operator<Signature>& op, Level& level, Parameters... arguments) {
    const auto rank = largest_rank(arguments...);
    return wrap(call_rewritten<at::Tensor, Parameters...>(
                    op.call,
                    [&](const at::Tensor& tensor) {
                      const auto whole = wrap(expanded_at_front(tensor, level), 0, level);
                      return aligned(whole, rank, level);
                    },
                    std::forward<Parameters>(arguments)...),
                0, level);
  }
};

using Generator = std::optional<at::Generator>;

// One uniform draw for all samples, against the probabilities of each.
at::Tensor same_bernoulli(const at::Tensor& sample, const at::Tensor& probability,
                          const Generator& generator) {
  const auto dtype =
      at::isFloatingType(probability.scalar_type()) ? probability.scalar_type() : at::kDouble;
  const auto uniform =
      at::rand_symint(sample.sym_sizes(), generator, sample.options().dtype(dtype));
  return at::lt(uniform, probability);
}

at::Tensor bernoulli_rule(const Operator<at::_ops::bernoulli::schema>& op, Level& level,
                          const at::Tensor& self, Generator generator) {
  if (!draws_same(op, level) || !is_batched_at(self, level)) {
    return OfParameters<at::_ops::bernoulli::schema>::rule(op, level, self, generator);
  }
  const auto draw = same_bernoulli(empty_sample(self, level), at_front(self, level), generator);
  return wrap(draw.to(self.scalar_type()), 0, level);
}

at::Tensor bernoulli_like_rule(const Operator<at::_ops::bernoulli_Tensor::schema>& op, Level& level,
                               const at::Tensor& self, const at::Tensor& p, Generator generator) {
  const bool same = draws_same(op, level);
  if (same && is_batched_at(p, level)) {
    const auto draw =
        same_bernoulli(empty_sample(self, level), aligned(p, self.dim(), level), generator);
    return wrap(draw.to(self.scalar_type()), 0, level);
  }
  const auto like = same ? empty_sample(self, level) : expanded_at_front(self, level);
  return wrap(op.call(like, aligned(p, self.dim(), level), generator), same ? no_bdim : 0, level);
}

at::Tensor& bernoulli_in_place_rule(const Operator<at::_ops::bernoulli__Tensor::schema>& op,
                                    Level& level, at::Tensor& self, const at::Tensor& p,
                                    Generator generator) {
  const bool same = draws_same(op, level);
  if (!is_batched_at(self, level) && (!same || is_batched_at(p, level))) {
    raise_shared_target(op.handle);
  }
  auto value = at_front(self, level);
  const auto probability = aligned(p, self.dim(), level);
  if (!same || !is_batched_at(self, level)) {
    op.call(value, probability, generator);
  } else if (is_batched_at(p, level)) {
    value.copy_(same_bernoulli(empty_sample(self, level), probability, generator));
  } else {
    auto draw = empty_sample(self, level);
    op.call(draw, probability, generator);
    value.copy_(draw);
  }
  return self;
}

// A normal draw for all samples, moved and scaled for each. It is a constant to derivatives, as
// PyTorch's is.
at::Tensor same_normal(const at::Tensor& given_mean, const at::Tensor& given_deviation,
                       const Generator& generator, Level& level) {
  const auto mean = given_mean.detach();
  const auto deviation = given_deviation.detach();
  const auto like = at::add(mean, deviation);  // for the shape and dtype of one sample
  const auto draw = at::randn_symint(like.sym_sizes(), generator, value_of(like, level).options());
  return at::add(mean, at::mul(deviation, wrap(draw, no_bdim, level)));
}

at::Tensor normal_rule(const Operator<at::_ops::normal_Tensor_Tensor::schema>& op, Level& level,
                       const at::Tensor& mean, const at::Tensor& deviation, Generator generator) {
  if (draws_same(op, level) && any_batched(level, mean, deviation)) {
    return same_normal(mean, deviation, generator, level);
  }
  return OfParameters<at::_ops::normal_Tensor_Tensor::schema>::rule(op, level, mean, deviation,
                                                                    generator);
}

at::Tensor normal_of_mean_rule(const Operator<at::_ops::normal_Tensor_float::schema>& op,
                               Level& level, const at::Tensor& mean, double deviation,
                               Generator generator) {
  if (draws_same(op, level) && is_batched_at(mean, level)) {
    return same_normal(mean, at::full_like(mean, deviation), generator, level);
  }
  return OfParameters<at::_ops::normal_Tensor_float::schema>::rule(op, level, mean, deviation,
                                                                   generator);
}

at::Tensor normal_of_deviation_rule(const Operator<at::_ops::normal_float_Tensor::schema>& op,
                                    Level& level, double mean, const at::Tensor& deviation,
                                    Generator generator) {
  if (draws_same(op, level) && is_batched_at(deviation, level)) {
    return same_normal(at::full_like(deviation, mean), deviation, generator, level);
  }
  return OfParameters<at::_ops::normal_float_Tensor::schema>::rule(op, level, mean, deviation,
                                                                   generator);
}

// Weights are (n) or (N, n); no more dimensions than that are taken.
at::Tensor multinomial_rule(const Operator<at::_ops::multinomial::schema>& op, Level& level,
                            const at::Tensor& self, c10::SymInt num_samples, bool replacement,
                            Generator generator) {
  TORCH_CHECK(self.dim() == 1 || self.dim() == 2, "prob_dist must be 1 or 2 dim");
  if (draws_same(op, level) || self.dim() != 2) {
    return OfParameters<at::_ops::multinomial::schema>::rule(op, level, self, num_samples,
                                                             replacement, generator);
  }
  const auto weights = merge_into(expanded_at_front(self, level), 0);
  const auto draw = op.call(weights, num_samples, replacement, generator);
  return wrap(split_from(draw, 0, level, self.sym_size(0)), 0, level);
}

}  // namespace

void register_random_rules() {
  add<at::_ops::rand_like, LikeSelf>();
  add<at::_ops::rand_like_generator, LikeSelf>();
  add<at::_ops::randn_like, LikeSelf>();
  add<at::_ops::randn_like_generator, LikeSelf>();
  add<at::_ops::randint_like, LikeSelf>();
  add<at::_ops::randint_like_generator, LikeSelf>();
  add<at::_ops::randint_like_low_dtype, LikeSelf>();
  add<at::_ops::randint_like_low_generator_dtype, LikeSelf>();
  add<at::_ops::randint_like_Tensor, LikeSelfBounded>();
  add<at::_ops::randint_like_Tensor_generator, LikeSelfBounded>();
  add<at::_ops::bernoulli_p, LikeSelf>();
  add<at::_ops::uniform, LikeSelf>();
  add<at::_ops::normal_functional, LikeSelf>();
  add<at::_ops::exponential, LikeSelf>();
  add<at::_ops::geometric, LikeSelf>();
  add<at::_ops::cauchy, LikeSelf>();
  add<at::_ops::log_normal, LikeSelf>();
  add<at::_ops::random, LikeSelf>();
  add<at::_ops::random_from, LikeSelf>();
  add<at::_ops::random_to, LikeSelf>();

  add<at::_ops::bernoulli__float, Fill>();
  add<at::_ops::uniform_, Fill>();
  add<at::_ops::normal_, Fill>();
  add<at::_ops::exponential_, Fill>();
  add<at::_ops::geometric_, Fill>();
  add<at::_ops::cauchy_, Fill>();
  add<at::_ops::log_normal_, Fill>();
  add<at::_ops::random_, Fill>();
  add<at::_ops::random__from, Fill>();
  add<at::_ops::random__to, Fill>();

  add<at::_ops::bernoulli>(bernoulli_rule);
  add<at::_ops::bernoulli_Tensor>(bernoulli_like_rule);
  add<at::_ops::bernoulli__Tensor>(bernoulli_in_place_rule);
  add<at::_ops::normal_Tensor_Tensor>(normal_rule);
  add<at::_ops::normal_Tensor_float>(normal_of_mean_rule);
  add<at::_ops::normal_float_Tensor>(normal_of_deviation_rule);
  add<at::_ops::multinomial>(multinomial_rule);
  add<at::_ops::poisson, OfParameters>();
  add<at::_ops::binomial, OfParameters>();
  add<at::_ops::_standard_gamma, OfParameters>();
  add<at::_ops::_sample_dirichlet, OfParameters>();
}

}  // namespace functorch_ext
