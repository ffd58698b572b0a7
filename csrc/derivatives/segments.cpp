// Reductions of segments, of which PyTorch has first derivatives of reverse mode alone.
#include <limits>

#include "batching/lengths.h"
#include "derivatives/given.h"
#include "derivatives/pulled_back.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

// What a reduction gives for no elements.
double neutral(c10::string_view reduce) {
  constexpr auto infinity = std::numeric_limits<double>::infinity();
  return reduce == "max" ? -infinity : reduce == "min" ? infinity : reduce == "prod" ? 1 : 0;
}

// Each segment is reduced with all elements that aren't its own masked.
at::Tensor reduced_segments(const at::Tensor& data, c10::string_view reduce,
                            const OptionalTensor& lengths, const OptionalTensor&,
                            const OptionalTensor& offsets, int64_t axis, bool,
                            const std::optional<at::Scalar>& initial) {
  const bool by_lengths = is_given(lengths);
  const auto ends = by_lengths ? lengths->cumsum(-1) : offsets->slice(-1, 1);
  const auto starts = by_lengths ? ends - *lengths : offsets->slice(-1, 0, -1);
  const auto along = c10::maybe_wrap_dim(axis, data.dim());
  const auto positions = at::arange(data.size(along), ends.options());
  auto is_own = (positions >= starts.unsqueeze(-1)).logical_and(positions < ends.unsqueeze(-1));
  while (is_own.dim() < data.dim() + 1) {
    is_own = is_own.unsqueeze(-1);
  }
  const auto fill = neutral(reduce);
  const auto own =
      at::where(is_own, data.unsqueeze(along), at::scalar_tensor(fill, data.options()));
  const auto first = initial ? initial->toDouble() : fill;
  if (reduce == "max") {
    return own.amax(along + 1).clamp_min(first);
  }
  if (reduce == "min") {
    return own.amin(along + 1).clamp_max(first);
  }
  if (reduce == "prod") {
    return own.prod(along + 1) * first;
  }
  const auto sum = own.sum(along + 1) + first;
  if (reduce == "sum") {
    return sum;
  }
  const auto counts = is_own.sum(along + 1);
  return (sum / counts.clamp_min(1))
      .masked_fill(counts == 0, initial ? first : std::numeric_limits<double>::quiet_NaN());
}

// Ahead of everything, since a backward pass would write to wrong places.
inline constexpr auto has_tangents_in_segments =
    [](const at::Tensor& data, c10::string_view, const OptionalTensor& lengths,
       const OptionalTensor&, const OptionalTensor& offsets, int64_t axis, bool unsafe,
       const std::optional<at::Scalar>&) {
      check_segments(data, lengths, offsets, axis, unsafe);
      return any_tangent(data);
    };

at::Tensor segment_reduce_backward(const at::Tensor& grad, const at::Tensor&,
                                   const at::Tensor& data, c10::string_view reduce,
                                   const OptionalTensor& lengths, const OptionalTensor& offsets,
                                   int64_t axis, const std::optional<at::Scalar>& initial) {
  const auto reduced = [&](const at::Tensor& x) {
    return reduced_segments(x, reduce, lengths, {}, offsets, axis, /*unsafe=*/true, initial);
  };
  const at::Tensor none;
  return pulled_back(reduced, data, grad, {lengths.value_or(none), offsets.value_or(none)});
}

}  // namespace

void register_segments_derivatives() {
  add_computed_when<at::_ops::segment_reduce, has_tangents_in_segments, reduced_segments>();
  add_computed_when<at::_ops::_segment_reduce_backward, is_differentiated_here,
                    segment_reduce_backward>();
}

}  // namespace functorch_ext
