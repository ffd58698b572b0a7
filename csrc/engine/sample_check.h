#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <unordered_set>

#include "engine/arguments.h"

// What plain PyTorch refuses for a sample is refused for a batch of samples.
//
// An operator's own checks see the physical tensors, among which a batch of vectors is a matrix,
// and a rule may convert a dtype that the operator wouldn't take, or expand one argument to the
// size of another. So PyTorch itself is asked: the first time that an operator meets arguments of
// these ranks and dtypes (and of these sizes, if there are several), it runs on one sample.
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

template <class Argument>
constexpr bool is_tensor_list =
    std::is_same_v<Argument, at::TensorList> || std::is_same_v<Argument, at::ITensorListRef> ||
    std::is_same_v<Argument, OptionalTensors>;

// How many tensors an argument may hold, two standing for more.
template <class Argument>
constexpr int most_tensors = is_tensor_list<Argument>                              ? 2
                             : std::is_same_v<Argument, at::Tensor>                ? 1
                             : std::is_same_v<Argument, std::optional<at::Tensor>> ? 1
                                                                                   : 0;

template <bool with_sizes>
inline void mix_tensor(uint64_t& hash, const at::Tensor& tensor) {
  if (!tensor.defined()) {
    mix(hash, absent_kind);
    return;
  }
  const auto* impl = tensor.unsafeGetTensorImpl();
  uint64_t kind =
      static_cast<uint64_t>(impl->dim()) << 8 | static_cast<uint64_t>(tensor.scalar_type()) << 1;
  if constexpr (with_sizes) {
    if (!impl->has_symbolic_sizes_strides()) {
      for (const auto size : impl->sizes()) {
        kind = kind * 0x100000001b3 + static_cast<uint64_t>(size);
      }
    }
  }
  mix(hash, kind);
}

// Ranks, dtypes and sizes of tensors, types and signs of numbers, small ints, flags and lengths of
// lists.
template <bool with_sizes, class Argument>
inline void mix_argument(uint64_t& hash, const Argument& argument) {
  if constexpr (std::is_same_v<Argument, at::Tensor>) {
    mix_tensor<with_sizes>(hash, argument);
  } else if constexpr (std::is_same_v<Argument, at::TensorList> ||
                       std::is_same_v<Argument, at::ITensorListRef>) {
    mix(hash, argument.size());
    for (const at::Tensor& tensor : argument) {
      mix_tensor<with_sizes>(hash, tensor);
    }
  } else if constexpr (std::is_same_v<Argument, OptionalTensors>) {
    mix(hash, argument.size());
    for (size_t i = 0; i < argument.size(); ++i) {
      mix_argument<with_sizes>(hash, argument.get(i));
    }
  } else if constexpr (std::is_same_v<Argument, at::Scalar>) {
    mix(hash, static_cast<uint64_t>(argument.type()));
  } else if constexpr (std::is_same_v<Argument, double>) {
    mix(hash, static_cast<uint64_t>(argument < 0) << 1 | static_cast<uint64_t>(argument == 0));
  } else if constexpr (std::is_same_v<Argument, at::OptionalIntArrayRef>) {
    mix_argument<with_sizes>(hash, argument ? *argument : at::IntArrayRef());
    mix(hash, argument.has_value());
  } else if constexpr (is_optional<Argument>) {
    if (argument) {
      mix_argument<with_sizes>(hash, *argument);
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
      mix_argument<with_sizes>(hash, element);
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

  // Does the operator take a tensor that it writes to as another argument, too?
  bool takes_itself() const {
    return takes_itself_.load(std::memory_order_relaxed);
  }
  void note_takes_itself() {
    takes_itself_.store(true, std::memory_order_relaxed);
  }

  // Calls ask() unless arguments like these have been seen; ask() says whether it could find out.
  template <class Ask, class... Arguments>
  void check(const Ask& ask, const Arguments&... arguments) {
    // Of one tensor alone, the rule and the operator see the sizes for themselves.
    constexpr bool with_sizes = (detail::most_tensors<Arguments> + ... + 0) > 1;
    uint64_t kinds = 0;
    (detail::mix_argument<with_sizes>(kinds, arguments), ...);
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
  std::atomic<bool> takes_itself_{false};
  std::array<std::atomic<uint64_t>, 16> recent_{};
  std::mutex mutex_;
  std::unordered_set<uint64_t> known_;
};

// Runs the operator on the sample of the level at `index` alone (the first of all other levels'),
// as plain PyTorch does, and raises what that raises. False if it can't be known: there is no such
// sample, or something records operators.
//
// `prepare` makes tensors that the operator may write to of the sample's; if empty, one for each.
bool run_on_sample(const c10::OperatorHandle& op, const Level* level, torch::jit::Stack arguments,
                   int64_t index = 0,
                   const std::function<void(torch::jit::Stack&)>& prepare = nullptr);

// The same for an operator that has a batching rule. That may do without the kernel of a device,
// which PyTorch lacks: this says nothing of the arguments.
bool ask_about_sample(const c10::OperatorHandle& op, const Level& level,
                      const torch::jit::Stack& arguments, int64_t index = 0);

// An operator failed on a batch: raises what plain PyTorch says of the first sample that it
// refuses, if any.
void raise_error_of_sample(const c10::Error& error, const c10::OperatorHandle& op,
                           const Level& level, const torch::jit::Stack& arguments);

}  // namespace functorch_ext
