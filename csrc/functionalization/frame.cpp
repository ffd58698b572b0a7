#include "functionalization/frame.h"

#include <ATen/Functions.h>

#include <limits>

#include "engine/torch_func.h"
#include "functionalization/level.h"
#include "functionalization/memory.h"

namespace functorch_ext {

namespace {

LevelPtr functional_level(bool remove_views) {
  return c10::make_intrusive<FunctionalLevel>(remove_views, next_depth(), thread_state().innermost);
}

}  // namespace

FunctionalFrame::FunctionalFrame(bool remove_views)
    : level_(functional_level(remove_views), /*is_plane=*/true),
      mode_(std::make_unique<FunctionalBelow>(std::numeric_limits<int64_t>::max())) {}

FunctionalFrame::~FunctionalFrame() {
  exit();
}

void FunctionalFrame::exit() {
  level_.exit();
  mode_.reset();
  outside_.reset();
}

at::Tensor FunctionalFrame::wrap(const at::Tensor& input) {
  TORCH_CHECK(mode_, "functorch_ext.functionalize: a frame was used after the transform had ended");
  for (const auto& known : inputs_) {
    if (known.outside.is_same(input)) {
      return known.inside;
    }
  }
  auto inside = allocate(input, *level_);
  inputs_.push_back({input, inside, place_of(inside, *level_)->memory});
  return inside;
}

at::Tensor FunctionalFrame::unwrap(const at::Tensor& output) const {
  const FunctionalBelow below(level_->depth);
  return current_value(without_ended_layers(output), *level_);
}

void FunctionalFrame::write_back() {
  for (const auto& [outside, inside, original] : inputs_) {
    const auto* place = place_of(inside, *level_);
    const auto& memory = *place->memory;
    if (place->memory == original && memory.generation == 0 && place->chain.empty()) {
      continue;
    }
    if (memory.generation > 0 || place->memory != original) {
      if (outside.sym_sizes() != memory.value.sym_sizes()) {
        outside.resize__symint(memory.value.sym_sizes());
      }
      outside.copy_(memory.value);
    }
    if (!place->chain.empty()) {
      const auto* impl = inside.unsafeGetTensorImpl();
      outside.as_strided__symint(impl->sym_sizes(), impl->sym_strides(),
                                 impl->sym_storage_offset());
    }
  }
}

}  // namespace functorch_ext
