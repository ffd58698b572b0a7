#include "engine/level.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "engine/torch_func.h"

namespace functorch_ext {

Level::Level(Kind kind, int64_t depth_, LevelPtr parent_)
    : computes_operators(kind.computes_operators),
      has_samples(kind.has_samples),
      depth(depth_),
      batch_size(std::move(kind.batch_size)),
      randomness(kind.randomness),
      parent(std::move(parent_)),
      layers(running_layers()),
      modes(c10::impl::TorchDispatchModeTLS::stack_len()),
      is_basis(kind.is_basis) {
  live.fetch_add(1);
}

Level::~Level() {
  live.fetch_sub(1);
}

void Level::compute(const c10::OperatorHandle& op, std::vector<c10::IValue>*) const {
  TORCH_INTERNAL_ASSERT(false, op.operator_name(), " on a level that computes no operators");
}

}  // namespace functorch_ext
