#pragma once

#include <optional>

#include "batching/families.h"

namespace functorch_ext {

// A function of an operator's arguments, made of other operators, as its rule and as its
// decomposition ahead of autograd.
template <class Op, auto compute>
struct Composed;

template <class Op, class Return, class... Parameters, Return (*compute)(Parameters...)>
struct Composed<Op, compute> {
  static Return rule(Level&, Parameters... arguments) {
    return compute(arguments...);
  }
  static std::optional<Return> decomposition(Level&, Parameters... arguments) {
    return compute(arguments...);
  }
  static void add() {
    functorch_ext::add<Op>(rule, decomposition);
  }
};

}  // namespace functorch_ext
