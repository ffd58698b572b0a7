#pragma once

#include <pybind11/pybind11.h>

#include "engine/derivatives.h"
#include "engine/level.h"

namespace functorch_ext {

// Is nothing of the engine in play: no tensor of a level anywhere, no derivative on this thread?
inline bool is_idle() {
  return Level::count() == 0 && !is_differentiating();
}

// _C.switch(plain, ours): a function in place of one of PyTorch's. While nothing of the engine is
// in play it calls `plain`, PyTorch's own, and that is all that programs without transforms pay.
// _C.switch_at_levels(plain, ours): one that calls `plain` where something differentiates, too, as
// long as there is no level.
// _C.is_idle(): the same question, for code of PyTorch's that it is put into.
void bind_switch(pybind11::module_& module);

}  // namespace functorch_ext
