#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace functorch_ext {

// _C.Observation: a record of the operators that run, for explain and debug.nans. It hangs on
// PyTorch's observers (RecordFunction): while nobody observes, operators know nothing of it.
void bind_observation(pybind11::module_& module);

// A loop over samples is reported: if somebody observes this thread, it is noted there.
bool note_observed_loop(const std::string& message);

}  // namespace functorch_ext
