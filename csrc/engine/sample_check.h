#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <unordered_set>

#include "engine/arguments.h"

// What plain PyTorch refuses for a sample is refused for a batch of samples.
//
// An operator's own checks see the physical tensors, among which a batch of vectors is a matrix,
// and a rule may convert a dtype that the operator wouldn't take. So PyTorch itself is asked: the
// first time that an operator meets arguments of these ranks and dtypes, it runs on one sample.
namespace functorch_ext {

namespace detail {

constexpr uint64_t absent_kind = 1;

inline void mix(uint64_t& hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15;
  hash ^= hash >> 32;
}

template <class>
constexpr bool is_optional = false;
template <class Value>
constexpr bool is_optional<std::optional<Value>> = true;

// A number by itself if it is small, as dimensions and options are: sizes and positions are many.
inline uint64_t kind_of_int(int64_t value) {
  constexpr int64_t small = 8;
  return static_cast<uint64_t>(std::clamp<int64_t>(value, -small - 1, small + 1) + small + 2);
}

inline void mix_tensor(uint64_t& hash, const at::Tensor& tensor) {
  if (!tensor.defined()) {
    mix(hash, absent_kind);
    return;
  }
  const auto rank = static_cast<uint64_t>(tensor.dim());
  mix(hash, rank << 8 | static_cast<uint64_t>(tensor.scalar_type()) << 1);
}

// Ranks and dtypes of tensors, types of numbers, small ints, flags and lengths of lists.
template <class Argument>
inline void mix_argument(uint64_t& hash, const Argument& argument) {
  if constexpr (std::is_same_v<Argument, at::Tensor>) {
    mix_tensor(hash, argument);
  } else if constexpr (std::is_same_v<Argument, at::TensorList> ||
                       std::is_same_v<Argument, at::ITensorListRef>) {
    mix(hash, argument.size());
    for (const at::Tensor& tensor : argument) {
      mix_tensor(hash, tensor);
    }
  } else if constexpr (std::is_same_v<Argument, OptionalTensors>) {
    mix(hash, argument.size());
    for (size_t i = 0; i < argument.size(); ++i) {
      mix_argument(hash, argument.get(i));
    }
  } else if constexpr (std::is_same_v<Argument, at::Scalar>) {
    mix(hash, static_cast<uint64_t>(argument.type()));
  } else if constexpr (std::is_same_v<Argument, at::OptionalIntArrayRef>) {
    mix_argument(hash, argument ? *argument : at::IntArrayRef());
    mix(hash, argument.has_value());
  } else if constexpr (is_optional<Argument>) {
    if (argument) {
      mix_argument(hash, *argument);
    } else {
      mix(hash, absent_kind);
    }
  } else if constexpr (std::is_same_v<Argument, bool> || std::is_same_v<Argument, at::ScalarType>) {
    mix(hash, static_cast<uint64_t>(argument));
  } else if constexpr (std::is_same_v<Argument, int64_t>) {
    mix(hash, kind_of_int(argument));
  } else if constexpr (std::is_same_v<Argument, c10::SymInt>) {
    mix(hash, kind_of_int(argument.maybe_as_int().value_or(0)));
  } else if constexpr (std::is_same_v<Argument, at::IntArrayRef> ||
                       std::is_same_v<Argument, c10::SymIntArrayRef>) {
    mix(hash, argument.size());
    for (const auto& element : argument) {
      mix_argument(hash, element);
    }
  } else if constexpr (requires { argument.size(); }) {
    mix(hash, argument.size());
  } else {
    mix(hash, 0);  // there, for an optional one
  }
}

}  // namespace detail

// Which arguments plain PyTorch is known to take, for one operator. Kernels of the operator share
// it and use it from several threads.
class SampleCheck {
 public:
  // Plain PyTorch needn't be asked, or can't be.
  void turn_off() {
    off_ = true;
  }
  bool is_off() const {
    return off_;
  }

  // Calls ask() unless arguments like these have been seen; ask() says whether it could find out.
  template <class Ask, class... Arguments>
  void check(const Ask& ask, const Arguments&... arguments) {
    uint64_t kinds = 0;
    (detail::mix_argument(kinds, arguments), ...);
    if (C10_UNLIKELY(kinds != recent(kinds).load(std::memory_order_relaxed)) && !is_known(kinds) &&
        ask()) {
      remember(kinds);
    }
  }

 private:
  // Where these kinds are noted, unless others like them came later.
  std::atomic<uint64_t>& recent(uint64_t kinds) {
    return recent_[kinds % recent_.size()];
  }
  bool is_known(uint64_t kinds);
  void remember(uint64_t kinds);

  bool off_ = false;
  std::array<std::atomic<uint64_t>, 16> recent_{};
  std::mutex mutex_;
  std::unordered_set<uint64_t> known_;
};

// Runs the operator on the sample at `index` alone, as plain PyTorch does, and raises what that
// raises. False if it can't be known: there is no such sample, or something records operators.
bool run_on_sample(const c10::OperatorHandle& op, const Level& level, torch::jit::Stack arguments,
                   int64_t index = 0);

// An operator failed on a batch: raises what plain PyTorch says of the first sample that it
// refuses, if any.
void raise_error_of_sample(const c10::Error& error, const c10::OperatorHandle& op,
                           const Level& level, const torch::jit::Stack& arguments);

}  // namespace functorch_ext
