#include "engine/keys.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>

namespace functorch_ext {

namespace {

void check_free(c10::DispatchKey key, bool free) {
  TORCH_CHECK(free, "functorch_ext can't be imported: another extension has registered kernels on ",
              "the dispatch key ", key,
              ", which functorch_ext needs for itself. Use the two in separate processes.");
}

}  // namespace

void check_keys_are_free() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto key : {entry_key, landing_key, ahead_key, randomness_key, key_without_kernels}) {
    check_free(key, !dispatcher.hasBackendFallbackForDispatchKey(key) &&
                        dispatcher.getAllOpNamesForDispatchKey(key).empty());
  }
  // PyTorch's random operators have kernels on this one; ours reads numbers.
  const auto taken = dispatcher.getAllOpNamesForDispatchKey(wrapper_key);
  check_free(wrapper_key, std::none_of(taken.begin(), taken.end(),
                                       [](const auto& op) { return op.name == "aten::item"; }));
}

}  // namespace functorch_ext
