#pragma once

#include <c10/util/ThreadLocalDebugInfo.h>

#include <string_view>
#include <type_traits>

// Kinds of a thread's debug information, which PyTorch numbers before 2.13, and knows by the
// address of a name since.
namespace functorch_ext {

// A kind of one's own. There is one in this extension: its number is none of PyTorch's.
template <class Kind = c10::DebugInfoKind>
Kind own_debug_info(const std::string_view& name) {
  if constexpr (std::is_enum_v<Kind>) {
    return static_cast<Kind>(0xfe);
  } else {
    return Kind(&name);
  }
}

}  // namespace functorch_ext
