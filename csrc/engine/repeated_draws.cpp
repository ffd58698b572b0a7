#include "engine/repeated_draws.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "engine/randomness.h"

namespace functorch_ext {

namespace {

// The generator that an operator draws from: one of its arguments, or that of the device it runs
// on; none where nothing is drawn (tensors without data).
std::optional<at::Generator> generator_of(const c10::OperatorHandle& op,
                                          const torch::jit::Stack& stack) {
  std::optional<at::Device> device;
  const auto count = op.schema().arguments().size();
  for (auto i = stack.size() - count; i < stack.size(); ++i) {
    if (stack[i].isGenerator()) {
      return stack[i].toGenerator();
    }
    if (stack[i].isDevice()) {
      device = stack[i].toDevice();
    } else if (!device && stack[i].isTensor() && stack[i].toTensor().defined()) {
      device = stack[i].toTensor().device();
    }
  }
  if (!device || device->is_cpu()) {
    return at::detail::getDefaultCPUGenerator();
  }
  if (device->is_meta()) {
    return std::nullopt;
  }
  return at::globalContext().defaultGenerator(*device);
}

}  // namespace

RepeatedDraws::RepeatedDraws() : random_kernels_(randomness_key) {}

void RepeatedDraws::rewind() {
  for (auto& [generator, state] : first_states_) {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state);
  }
}

void RepeatedDraws::note_generator(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  auto generator = generator_of(op, stack);
  if (!generator) {
    return;
  }
  for (auto* each = thread_state().repeated_draws; each; each = each->here_.outer()) {
    auto& known = each->first_states_;
    const bool is_known = std::any_of(known.begin(), known.end(),
                                      [&](const auto& one) { return one.first == *generator; });
    if (!is_known) {
      const std::lock_guard<std::mutex> lock(generator->mutex());
      known.emplace_back(*generator, generator->get_state());
    }
  }
}

}  // namespace functorch_ext
