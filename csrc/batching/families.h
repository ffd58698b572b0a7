#pragma once

#include <optional>
#include <utility>

#include "batching/physical.h"
#include "batching/promotion.h"
#include "engine/registration.h"

// The rule families that need nothing but the operator's signature: each computes the operator
// once, on physical tensors with the samples in front.
namespace functorch_ext {

// Every tensor of a result as a batched one, samples along `bdim`.
template <class Result>
inline auto batched_result(Result&& result, const Level& level, int64_t bdim = 0) {
  using Type = std::remove_cv_t<std::remove_reference_t<Result>>;
  if constexpr (std::is_same_v<Type, at::Tensor>) {
    return result.defined() ? wrap(std::forward<Result>(result), bdim, level) : at::Tensor();
  } else if constexpr (std::is_same_v<Type, std::vector<at::Tensor>>) {
    std::vector<at::Tensor> wrapped;
    wrapped.reserve(result.size());
    for (auto& tensor : result) {
      wrapped.push_back(batched_result(std::move(tensor), level, bdim));
    }
    return wrapped;
  } else {
    return Type(std::forward<Result>(result));
  }
}

template <class... Results>
inline std::tuple<Results...> batched_result(std::tuple<Results...>&& results, const Level& level,
                                             int64_t bdim = 0) {
  return std::apply(
      [&](auto&... result) {
        return std::tuple<Results...>{batched_result(std::move(result), level, bdim)...};
      },
      results);
}

template <class... Arguments>
inline int64_t largest_rank(const Arguments&... arguments) {
  int64_t rank = 0;
  (for_each_tensor(arguments,
                   [&](const at::Tensor& tensor) { rank = std::max(rank, tensor.dim()); }),
   ...);
  return rank;
}

// Elementwise operators with broadcasting, functional and in place: the values line up from the
// right once all batched ones have the same rank.
template <class Signature>
struct Pointwise;

template <class Return, class... Parameters>
struct Pointwise<Return(Parameters...)> {
  // What the operator takes with samples, it takes without: unless a dtype is changed below.
  static constexpr bool takes_the_same = true;

  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    const auto rank = largest_rank(arguments...);
    if constexpr (std::is_same_v<Return, at::Tensor&>) {
      // In place, a sample keeps its shape. Its value, with dimensions of size 1 to line up with
      // those of another argument, wouldn't mind being written as a tensor of more dimensions.
      if (C10_UNLIKELY(first_tensor(arguments...).dim() < rank)) {
        op.ask_about_sample(level, arguments...);
      }
    }
    int64_t tensors = 0;
    bool lined_up = true;  // all batched ones have full rank and the samples in front
    int64_t bdim = 0;
    (for_each_tensor(arguments,
                     [&](const at::Tensor& tensor) {
                       ++tensors;
                       if (const auto* wrapper = wrapper_at(tensor, level);
                           wrapper && wrapper->is_batched()) {
                         bdim = wrapper->bdim();
                         lined_up = lined_up && bdim == 0 && tensor.dim() == rank;
                       }
                     }),
     ...);
    if (tensors == 1 || (lined_up && rank > 0)) {
      return finish(call_rewritten<Return, Parameters...>(
                        op.call,
                        [&](const at::Tensor& tensor) -> const at::Tensor& {
                          return value_of(tensor, level);
                        },
                        std::forward<Parameters>(arguments)...),
                    level, bdim);
    }
    // What is written to in place must stay as it is. If it is a number, so are all arguments.
    const auto promotion = op.traits.mutates && rank == 0
                               ? LogicalPromotion()
                               : LogicalPromotion::of(level, arguments...);
    if (C10_UNLIKELY(promotion.casts())) {
      op.ask_about_sample(level, arguments...);
    }
    return finish(call_rewritten<Return, Parameters...>(
                      op.call,
                      [&](const at::Tensor& tensor) {
                        return promotion.apply(aligned(tensor, rank, level), tensor);
                      },
                      std::forward<Parameters>(arguments)...),
                  level, 0);
  }

 private:
  static Return finish(Return&& result, const Level& level, int64_t bdim) {
    if constexpr (std::is_reference_v<Return>) {
      return result;  // the kernel gives back the argument that was written to
    } else {
      return batched_result(std::move(result), level, bdim);
    }
  }
};

namespace detail {

// A logical dimension argument as a physical one; `rank` is at least 1.
template <class Dim>
inline auto shift_dim(const Dim& dim, int64_t rank) {
  if constexpr (std::is_same_v<Dim, int64_t>) {
    return physical_dim(dim, rank);
  } else if constexpr (std::is_same_v<Dim, std::optional<int64_t>>) {
    return std::optional<int64_t>(physical_dim(*dim, rank));
  } else {
    // A list of dimensions; none given means all of them.
    static_assert(std::is_same_v<Dim, at::IntArrayRef> ||
                  std::is_same_v<Dim, at::OptionalIntArrayRef>);
    std::vector<int64_t> dims = {};
    const bool given = [&] {
      if constexpr (std::is_same_v<Dim, at::OptionalIntArrayRef>) {
        return dim.has_value();
      } else {
        return true;
      }
    }();
    if (given) {
      if constexpr (std::is_same_v<Dim, at::OptionalIntArrayRef>) {
        dims = physical_dims(*dim, rank);
      } else {
        dims = physical_dims(dim, rank);
      }
    }
    if (dims.empty()) {
      for (int64_t each = 0; each < rank; ++each) {
        dims.push_back(each + 1);
      }
    }
    return dims;
  }
}

template <class Parameter>
constexpr bool can_be_dim =
    std::is_same_v<Parameter, int64_t> || std::is_same_v<Parameter, std::optional<int64_t>> ||
    std::is_same_v<Parameter, at::IntArrayRef> ||
    std::is_same_v<Parameter, at::OptionalIntArrayRef>;

template <class Parameter>
constexpr bool holds_tensor = !std::is_same_v<typename Rewritten<Parameter>::type, Parameter>;

}  // namespace detail

// Operators that take dimensions: the same with each dimension shifted behind the samples. All
// tensor arguments get the batch dimension, and those of rank 0 one more (PyTorch lets dimension 0
// of a number be named).
template <class Signature>
struct AlongDims;

template <class Return, class... Parameters>
struct AlongDims<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    return apply(op, level, std::index_sequence_for<Parameters...>{}, arguments...);
  }

 private:
  template <size_t... I>
  static Return apply(const Operator<Return(Parameters...)>& op, Level& level,
                      std::index_sequence<I...>,
                      const std::remove_reference_t<Parameters>&... arguments) {
    const auto rank = first_tensor(arguments...).dim();
    int64_t tensors = 0;
    (for_each_tensor(arguments, [&](const at::Tensor&) { ++tensors; }), ...);
    // A dimension of None stands for the flattened tensor.
    const bool flatten = (is_absent_dim(op.dims >> I & 1, arguments) || ...) && tensors == 1;
    const auto physical = [&](const at::Tensor& tensor) {
      auto value = tensors == 1 ? at_front(tensor, level) : expanded_at_front(tensor, level);
      if (tensor.dim() == 0) {
        value = value.unsqueeze(1);
      } else if (flatten) {
        value = value.flatten(1);
      }
      return value;
    };
    const auto logical_rank = flatten ? 1 : std::max<int64_t>(rank, 1);
    std::tuple<Prepared<Parameters>...> prepared{
        prepare<Parameters>(arguments, op.dims >> I & 1, logical_rank, physical)...};
    const auto extra = rank == 0 ? Extra::Dimension : flatten ? Extra::Flattening : Extra::None;
    return finish(op.call(std::get<I>(prepared).get()...), extra, rank, level);
  }

  // What was done to the values besides moving the samples to the front.
  enum class Extra : uint8_t { None, Dimension, Flattening };

  template <class Argument>
  static bool is_absent_dim(bool is_dim, const Argument& argument) {
    if constexpr (std::is_same_v<Argument, std::optional<int64_t>>) {
      return is_dim && !argument.has_value();
    } else {
      return false;
    }
  }

  // An argument as it is passed on: rewritten tensors and shifted dimensions are stored here.
  template <class Parameter>
  struct Prepared {
    std::optional<typename Rewritten<Parameter>::type> same = {};
    std::vector<int64_t> dims = {};
    bool has_dims = false;

    Parameter get() {
      if constexpr (std::is_same_v<Parameter, at::IntArrayRef> ||
                    std::is_same_v<Parameter, at::OptionalIntArrayRef>) {
        if (has_dims) {
          return at::IntArrayRef(dims);
        }
      }
      return static_cast<Parameter>(*same);
    }
  };
  template <class Parameter>
    requires(std::is_reference_v<typename Rewritten<Parameter>::type>)
  struct Prepared<Parameter> {
    Parameter same;
    Parameter get() {
      return same;
    }
  };

  template <class Parameter, class Argument, class Physical>
  static Prepared<Parameter> prepare(const Argument& argument, bool is_dim, int64_t rank,
                                     const Physical& physical) {
    if constexpr (detail::holds_tensor<Parameter>) {
      return {rewrite<Parameter>(const_cast<Argument&>(argument), physical)};
    } else if constexpr (std::is_reference_v<typename Rewritten<Parameter>::type>) {
      return {argument};
    } else if constexpr (detail::can_be_dim<Parameter>) {
      if (!is_dim) {
        return {argument};
      }
      if constexpr (std::is_same_v<Parameter, int64_t>) {
        return {detail::shift_dim(argument, rank)};
      } else if constexpr (std::is_same_v<Parameter, std::optional<int64_t>>) {
        return {argument ? detail::shift_dim(argument, rank) : std::optional<int64_t>(1)};
      } else {
        return {std::nullopt, detail::shift_dim(argument, rank), true};
      }
    } else {
      return {argument};
    }
  }

  template <class Result>
  static auto finish(Result&& result, Extra extra, int64_t rank, const Level& level) {
    using Type = std::remove_cv_t<std::remove_reference_t<Result>>;
    if constexpr (std::is_same_v<Type, at::Tensor>) {
      if (extra != Extra::None && result.defined() && result.dim() == 2) {
        // A kept dimension stands for all that were flattened.
        auto reshaped = result.squeeze(1);
        for (int64_t dim = 0; dim < rank; ++dim) {
          reshaped = reshaped.unsqueeze(1);
        }
        return wrap(std::move(reshaped), 0, level);
      }
      return batched_result(std::move(result), level);
    } else if constexpr (std::is_same_v<Type, std::vector<at::Tensor>>) {
      std::vector<at::Tensor> wrapped;
      for (auto& tensor : result) {
        wrapped.push_back(finish(std::move(tensor), extra, rank, level));
      }
      return wrapped;
    } else {
      return finish_tuple(std::move(result), extra, rank, level);
    }
  }
  template <class... Results>
  static std::tuple<Results...> finish_tuple(std::tuple<Results...>&& results, Extra extra,
                                             int64_t rank, const Level& level) {
    return std::apply(
        [&](auto&... result) {
          return std::tuple<Results...>{finish(std::move(result), extra, rank, level)...};
        },
        results);
  }
};

// Operators that take any number of leading batch dimensions themselves, such as those of linear
// algebra.
template <class Signature>
struct Leading;

template <class Return, class... Parameters>
struct Leading<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    const auto rank = largest_rank(arguments...);
    return batched_result(
        call_rewritten<Return, Parameters...>(
            op.call, [&](const at::Tensor& tensor) { return aligned(tensor, rank, level); },
            std::forward<Parameters>(arguments)...),
        level);
  }
};

// Operators on (N, ...) whose results all have N in front too, such as pooling: the samples join N.
// Of unbatched arguments, a rank below `rank_with_n` says that N is missing and the samples are N.
template <int64_t rank_with_n>
struct MergedIntoN {
  template <class Signature>
  struct Family;

  template <class Return, class... Parameters>
  struct Family<Return(Parameters...)> {
    static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                       Parameters... arguments) {
      const bool has_n = first_tensor(arguments...).dim() >= rank_with_n;
      auto result = call_rewritten<Return, Parameters...>(
          op.call,
          [&](const at::Tensor& tensor) {
            auto value = expanded_at_front(tensor, level);
            value = has_n ? merge_into(value, 0) : value;
            // Some kernels read indices in the order of memory, whatever their strides.
            return c10::isIntegralType(value.scalar_type(), false) ? value.contiguous() : value;
          },
          std::forward<Parameters>(arguments)...);
      return has_n ? split(std::move(result), first_tensor(arguments...).sym_size(0), level)
                   : batched_result(std::move(result), level);
    }

   private:
    static at::Tensor split(at::Tensor&& result, const c10::SymInt& n, const Level& level) {
      return result.defined() ? wrap(split_from(result, 0, level, n), 0, level) : result;
    }
    template <class... Results>
    static std::tuple<Results...> split(std::tuple<Results...>&& results, const c10::SymInt& n,
                                        const Level& level) {
      return std::apply(
          [&](auto&... result) {
            return std::tuple<Results...>{split(std::move(result), n, level)...};
          },
          results);
    }
  };
};

}  // namespace functorch_ext
