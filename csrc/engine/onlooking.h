#pragma once

#include <cstdint>

// Dispatch modes that only look on: they count what operators return, and change nothing. What
// the engine runs beside the program stays hidden from them, as from PyTorch's profiler, so there
// is no need to leave it out while they are on.
namespace functorch_ext {

void begin_onlooking();
void end_onlooking();

// Is there a dispatch mode on this thread that may do more than that?
bool has_other_modes();

}  // namespace functorch_ext
