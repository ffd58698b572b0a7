// Random operators that take their state as an argument, a key of two numbers, and draw from no
// generator: what a sample draws depends on its key alone.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// One key is for the whole of a tensor. Where there are several, they have its dimensions, of size
// 1 where a part of it shares a key. So each sample has a key of its own, perhaps an equal one.
at::Tensor key_of_samples(const at::Tensor& key, const at::Tensor& drawn, const Level& level) {
  auto keys = expanded_at_front(key, level);
  for (auto rank = key.dim(); rank < drawn.dim() + 1; ++rank) {
    keys = keys.unsqueeze(1);
  }
  return keys;
}

template <class Signature>
struct Keyed;
template <class... Parameters>
struct Keyed<at::Tensor(const at::Tensor&, const at::Tensor&, Parameters...)> {
  static at::Tensor rule(
      const Operator<at::Tensor(const at::Tensor&, const at::Tensor&, Parameters...)>& op,
      Level& level, const at::Tensor& self, const at::Tensor& key, Parameters... arguments) {
    return wrap(
        op.call(expanded_at_front(self, level), key_of_samples(key, self, level), arguments...), 0,
        level);
  }
};
template <class... Parameters>
struct Keyed<at::Tensor&(at::Tensor&, const at::Tensor&, Parameters...)> {
  static at::Tensor& rule(
      const Operator<at::Tensor&(at::Tensor&, const at::Tensor&, Parameters...)>& op, Level& level,
      at::Tensor& self, const at::Tensor& key, Parameters... arguments) {
    auto drawn = at_front(self, level);
    op.call(drawn, key_of_samples(key, self, level), arguments...);
    return self;
  }
};

// (key, ...) -> (split, key, ...)
template <class Signature>
struct SplitInFront;
template <>
struct SplitInFront<at::Tensor(const at::Tensor&, int64_t)> {
  static at::Tensor rule(const Operator<at::Tensor(const at::Tensor&, int64_t)>& op, Level& level,
                         const at::Tensor& key, int64_t splits) {
    return wrap(op.call(at_front(key, level), splits), 1, level);
  }
};

}  // namespace

void register_keyed_random_rules() {
  add<at::_ops::_philox_normal, Keyed>();
  add<at::_ops::_philox_normal_, Keyed>();
  add<at::_ops::_philox_uniform, Keyed>();
  add<at::_ops::_philox_uniform_, Keyed>();
  add<at::_ops::_philox_randint, Keyed>();
  add<at::_ops::_philox_randint_, Keyed>();
  add<at::_ops::_philox_key_split, SplitInFront>();
  add<at::_ops::_philox_key_fold_in, Leading>();
}

}  // namespace functorch_ext
