// Second-order series whose second derivative is summed over directions. Of a Laplacian's time,
// what products of matrices don't take goes to passes over first derivatives, of which there are as
// many as directions. Operators make three: they square, sum the squares, and scale.
#include "taylor/collapsed.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <array>

#include "batching/large_memory.h"
#include "batching/physical.h"
#include "batching/vectorized.h"
#include "engine/below_all_levels.h"
#include "engine/frames.h"
#include "engine/threads.h"

namespace functorch_ext {

namespace {

using Pair = std::pair<at::Tensor, at::Tensor>;

// Throughout, dimension `dim` of `first` holds the directions; `slope` has all others.
Pair by_operators(const at::Tensor& first, const at::Tensor& slope, int64_t dim) {
  return {at::mul(first, slope.unsqueeze(dim)), at::sum(at::mul(first, first), dim)};
}

template <class Number>
FUNCTORCH_EXT_VECTORIZED void scale_and_square(const Number* __restrict numbers,
                                               const Number* __restrict slope,
                                               Number* __restrict scaled,
                                               Number* __restrict squares, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const auto number = numbers[i];
    scaled[i] = number * slope[i];
    squares[i] += number * number;
  }
}

// Numbers at a time, whose sums stay in the fastest cache; and directions, whose sums are added to
// those of others, so that rounding errors don't grow with the number of all.
constexpr int64_t most_numbers = 1024, most_directions = 64;

// A matrix of a row for each direction.
template <class Number>
void scale_and_square_rows(const Number* numbers, const Number* slope, Number* scaled,
                           Number* squares, int64_t directions, int64_t stride, int64_t count) {
  std::array<Number, most_numbers> sums;
  std::fill_n(squares, count, Number());
  for (int64_t start = 0; start < directions; start += most_directions) {
    std::fill_n(sums.data(), count, Number());
    for (auto row = start; row < std::min(start + most_directions, directions); ++row) {
      const auto offset = row * stride;
      scale_and_square(numbers + offset, slope, scaled + offset, sums.data(), count);
    }
    for (int64_t i = 0; i < count; ++i) {
      squares[i] += sums[i];
    }
  }
}

// A tensor as a stack of such matrices.
struct Stack {
  int64_t matrices, directions, columns;

  Stack(const at::Tensor& first, int64_t dim)
      : matrices(c10::multiply_integers(first.sizes().slice(0, dim))),
        directions(first.size(dim)),
        columns(c10::multiply_integers(first.sizes().slice(dim + 1))) {}
};

template <class Number>
void fill(const Stack& stack, const at::Tensor& first, const at::Tensor& slope,
          const at::Tensor& scaled, const at::Tensor& squares) {
  const auto* from = first.const_data_ptr<Number>();
  const auto* factors = slope.const_data_ptr<Number>();
  auto* to = scaled.mutable_data_ptr<Number>();
  auto* sums = squares.mutable_data_ptr<Number>();
  const auto parts = (stack.columns + most_numbers - 1) / most_numbers;
  const auto numbers = stack.directions * std::min(stack.columns, most_numbers);
  const auto grain = 1 + at::internal::GRAIN_SIZE / std::max<int64_t>(numbers, 1);
  on_all_threads(stack.matrices * parts, grain, [&](int64_t begin, int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const auto column = i % parts * most_numbers;
      const auto offset = i / parts * stack.directions * stack.columns + column;
      const auto place = i / parts * stack.columns + column;
      scale_and_square_rows(from + offset, factors + place, to + offset, sums + place,
                            stack.directions, stack.columns,
                            std::min(stack.columns - column, most_numbers));
    }
  });
}

// Shorter rows are slower than operators.
constexpr int64_t fewest_columns = 16;

Pair on_plane_0(const at::Tensor& first, const at::Tensor& slope, int64_t dim) {
  const auto type = first.scalar_type();
  const bool is_in_memory = is_readable(first) && is_readable(slope) && first.is_contiguous() &&
                            slope.is_contiguous() && slope.scalar_type() == type &&
                            (type == at::kFloat || type == at::kDouble);
  if (!is_in_memory) {
    return by_operators(first, slope, dim);
  }
  const Stack stack(first, dim);
  auto sizes = first.sizes().vec();
  sizes.erase(sizes.begin() + dim);
  if (stack.columns < fewest_columns || slope.sizes() != at::IntArrayRef(sizes)) {
    return by_operators(first, slope, dim);
  }
  const auto scaled = empty_in_large_pages(first.sizes(), first.options());
  const auto squares = at::empty(slope.sizes(), slope.options());
  if (type == at::kFloat) {
    fill<float>(stack, first, slope, scaled, squares);
  } else {
    fill<double>(stack, first, slope, scaled, squares);
  }
  return {scaled, squares};
}

// May a vmap pass these on to the plane below? Not if it, or autocast, has more to do with them.
// Their numbers are in the memory of a CPU.
bool are_plain_samples(const at::Tensor& first, const at::Tensor& slope, const Level& level) {
  const auto is_plain_sample = [&](const at::Tensor& tensor) {
    return is_batched_at(tensor, level) && !tensor.requires_grad() &&
           !tensor._fw_grad(/*level=*/0).defined();
  };
  return level.is_vmap() && level.is_running() && is_plain_sample(first) &&
         is_plain_sample(slope) && !at::autocast::is_autocast_enabled(at::kCPU);
}

Pair on_any_plane(const at::Tensor& first, const at::Tensor& slope, int64_t dim) {
  if (!is_wrapper(first)) {
    return is_wrapper(slope) ? by_operators(first, slope, dim) : on_plane_0(first, slope, dim);
  }
  const auto level = wrapper_of(first)->level_ptr();
  if (!is_readable(below_all_levels(first)) || !are_plain_samples(first, slope, *level)) {
    return by_operators(first, slope, dim);
  }
  const PlaneBelow below(*level);
  auto [scaled, squares] = on_any_plane(at_front(first, *level), at_front(slope, *level), dim + 1);
  return {wrap(std::move(scaled), 0, *level), wrap(std::move(squares), 0, *level)};
}

}  // namespace

std::optional<Pair> scaled_and_squared(const LevelPtr& level, const at::Tensor& first,
                                       const at::Tensor& slope) {
  const auto dim = bdim_of(first, *level);
  if (dim == no_bdim || wrapper_at(slope, *level) || first.dim() != slope.dim() ||
      first.scalar_type() != slope.scalar_type()) {
    return std::nullopt;
  }
  const BelowFrame below(level);
  auto [scaled, squares] = on_any_plane(value_of(first, *level), slope, dim);
  return Pair(wrap(std::move(scaled), dim, *level), std::move(squares));
}

}  // namespace functorch_ext
