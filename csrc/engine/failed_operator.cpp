#include "engine/failed_operator.h"

#include <utility>

namespace functorch_ext {

namespace {

// (operator, message)
thread_local std::pair<std::string, std::string> last;

}  // namespace

void note_failed_operator(const c10::OperatorHandle& op, const c10::Error& error) {
  last = {toString(op.operator_name()), error.msg()};
}

std::string failed_operator(const std::string& message) {
  return !last.second.empty() && message.find(last.second) != std::string::npos ? last.first
                                                                                : std::string();
}

}  // namespace functorch_ext
