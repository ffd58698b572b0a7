#pragma once

#include "engine/level.h"

namespace functorch_ext {

// functionalize: tensors stand for values that mutations replace.
struct FunctionalLevel final : Level {
  FunctionalLevel(bool remove_views_, int64_t depth, LevelPtr parent)
      : Level({.computes_operators = true}, depth, std::move(parent)),
        remove_views(remove_views_) {}

  void compute(const c10::OperatorHandle& op, std::vector<c10::IValue>* stack) const override;

  const bool remove_views;  // and views, with operators that copy
};

inline bool removes_views(const Level& level) {
  return static_cast<const FunctionalLevel&>(level).remove_views;
}

}  // namespace functorch_ext
