#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>

namespace functorch_ext {

// Which operator raised an error of PyTorch's, whose message may not say it. Kept for each thread
// where an error passes us anyway.
void note_failed_operator(const c10::OperatorHandle& op, const c10::Error& error);

// The operator that raised an error of this message; empty if that isn't known.
std::string failed_operator(const std::string& message);

}  // namespace functorch_ext
