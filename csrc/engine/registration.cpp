#include "engine/registration.h"

#include <map>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "engine/boxed.h"

namespace functorch_ext {

namespace {

std::mutex registration_mutex;

// Kernels stay until the process ends, past the destructors of libtorch's dispatcher.
std::vector<c10::RegistrationHandleRAII>& handles() {
  static auto* handles = new std::vector<c10::RegistrationHandleRAII>();
  return *handles;
}

std::unordered_set<c10::OperatorName>& operators_with(c10::DispatchKey key) {
  static auto* operators = new std::map<c10::DispatchKey, std::unordered_set<c10::OperatorName>>();
  return (*operators)[key];
}

constexpr const char* origin = "functorch_ext";

const char* current_family = "";

std::vector<Registered>& registered() {
  static auto* operators = new std::vector<Registered>();
  return *operators;
}

}  // namespace

void register_kernel(const c10::OperatorHandle& op, c10::DispatchKey key,
                     c10::KernelFunction kernel) {
  TORCH_INTERNAL_ASSERT(operators_with(key).insert(op.operator_name()).second, "two rules for ",
                        op.operator_name());
  handles().push_back(c10::Dispatcher::singleton().registerImpl(
      op.operator_name(), key, std::move(kernel), std::nullopt, nullptr, origin));
}

void ensure_landing(const c10::OperatorHandle& op) {
  const std::lock_guard<std::mutex> lock(registration_mutex);
  if (operators_with(landing_key).count(op.operator_name()) || OperatorTraits::of(op).composite) {
    return;
  }
  register_kernel(op, landing_key, c10::KernelFunction::makeFromBoxedFunction<&boxed_landing>());
}

void register_fallbacks() {
  auto& dispatcher = c10::Dispatcher::singleton();
  handles().push_back(dispatcher.registerFallback(
      entry_key, c10::KernelFunction::makeFromBoxedFunction<&boxed_entry>(), origin));
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (const auto op = dispatcher.findSchema(name)) {
      ensure_landing(*op);
    }
  }
}

FamilyScope::FamilyScope(const char* name) {
  current_family = name;
}

FamilyScope::~FamilyScope() {
  current_family = "";
}

const std::vector<Registered>& registered_operators() {
  return registered();
}

void note_registered(const c10::OperatorHandle& op, bool has_rule) {
  registered().push_back({toString(op.operator_name()), current_family, has_rule});
}

int argument_position(const c10::OperatorHandle& op, const std::string& name) {
  const auto position = op.schema().argumentIndexWithName(name);
  TORCH_INTERNAL_ASSERT(position, op.operator_name(), " has no argument called ", name);
  return *position;
}

}  // namespace functorch_ext
