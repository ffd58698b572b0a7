// Max pooling of many planes: of all channels of all samples.
#include <algorithm>
#include <limits>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/vectorized.h"
#include "engine/threads.h"

namespace functorch_ext {

namespace {

// Windows without padding and gaps, by rows and columns.
struct Windows {
  std::array<int64_t, 2> kernel, stride, input, output;

  static std::optional<Windows> of(const at::Tensor& value, at::IntArrayRef kernel_size,
                                   at::IntArrayRef stride, at::IntArrayRef padding,
                                   at::IntArrayRef dilation, bool ceil_mode) {
    const auto all = [](at::IntArrayRef list, int64_t number) {
      return std::all_of(list.begin(), list.end(), [&](auto each) { return each == number; });
    };
    if (ceil_mode || !all(padding, 0) || !all(dilation, 1)) {
      return std::nullopt;
    }
    Windows windows;
    for (size_t dim = 0; dim < 2; ++dim) {
      const auto along = [&](at::IntArrayRef list) { return list[list.size() == 1 ? 0 : dim]; };
      windows.kernel[dim] = along(kernel_size);
      windows.stride[dim] = along(stride.empty() ? kernel_size : stride);
      windows.input[dim] = value.size(value.dim() - 2 + static_cast<int64_t>(dim));
      const auto room = windows.input[dim] - windows.kernel[dim];
      if (windows.kernel[dim] < 1 || windows.stride[dim] < 1 || room < 0) {
        return std::nullopt;
      }
      windows.output[dim] = room / windows.stride[dim] + 1;
    }
    const bool fits = windows.input[0] * windows.input[1] <= std::numeric_limits<int32_t>::max();
    return fits ? std::optional(windows) : std::nullopt;
  }
};

// Outputs whose windows start at `start` and go on along a row: the largest number of each and its
// place in the plane. Not a number counts as larger than any. Masks instead of branches, which
// nothing could predict.
template <bool next_to_each_other, class Number>
FUNCTORCH_EXT_VECTORIZED void pool_run(const Number* __restrict plane, int64_t start, int64_t count,
                                       const Windows& windows, Number* __restrict largest,
                                       int32_t* __restrict places) {
  const auto stride = next_to_each_other ? 1 : windows.stride[1];
  for (int64_t i = 0; i < windows.kernel[0]; ++i) {
    for (int64_t j = 0; j < windows.kernel[1]; ++j) {
      const auto from = static_cast<int32_t>(start + i * windows.input[1] + j);
      const auto* numbers = plane + from;
      const bool first = i == 0 && j == 0;
      for (int64_t each = 0; each < count; ++each) {
        const auto number = numbers[each * stride];
        const auto before = largest[each];
        const int32_t larger =
            -static_cast<int32_t>(first | (number > before) | (number != number));
        const auto place = from + static_cast<int32_t>(each * stride);
        largest[each] = larger ? number : before;
        places[each] = (place & larger) | (places[each] & ~larger);
      }
    }
  }
}

// Pools planes one after another.
template <class Number>
class Pool {
 public:
  explicit Pool(const Windows& windows)
      : windows_(windows),
        in_one_run_(windows.stride[0] == 1 && windows.stride[1] == 1),
        count_(in_one_run_ ? (windows.output[0] - 1) * windows.input[1] + windows.output[1]
                           : windows.output[1]),
        largest_(count_),
        places_(count_) {}

  void operator()(const Number* plane, Number* largest, int64_t* indices) {
    // Windows at every place: rows follow each other, with some windows between that reach over the
    // end of a row and are left out. Long runs fill vectors better than short ones.
    if (in_one_run_) {
      pool_run<true>(plane, 0, count_, windows_, largest_.data(), places_.data());
    }
    const auto width = windows_.output[1];
    for (int64_t row = 0; row < windows_.output[0]; ++row) {
      const auto start = row * windows_.stride[0] * windows_.input[1];
      if (!in_one_run_) {
        const auto run =
            windows_.stride[1] == 1 ? &pool_run<true, Number> : &pool_run<false, Number>;
        run(plane, start, count_, windows_, largest_.data(), places_.data());
      }
      const auto skipped = in_one_run_ ? start : 0;
      std::copy_n(largest_.data() + skipped, width, largest + row * width);
      std::copy_n(places_.data() + skipped, width, indices + row * width);
    }
  }

 private:
  const Windows& windows_;
  const bool in_one_run_;
  const int64_t count_;
  std::vector<Number> largest_;
  std::vector<int32_t> places_;
};

// Fewer aren't worth another thread.
constexpr int64_t numbers_for_a_thread = 1 << 15;

template <class Number>
std::tuple<at::Tensor, at::Tensor> pool_planes(const at::Tensor& value, const Windows& windows) {
  auto sizes = value.sizes().vec();
  std::copy(windows.output.begin(), windows.output.end(), sizes.end() - 2);
  const auto largest = at::empty(sizes, value.options());
  const auto indices = at::empty(sizes, value.options().dtype(at::kLong));
  const auto* from = value.const_data_ptr<Number>();
  auto* to = largest.mutable_data_ptr<Number>();
  auto* to_index = indices.mutable_data_ptr<int64_t>();
  const auto input = windows.input[0] * windows.input[1];
  const auto output = windows.output[0] * windows.output[1];
  on_all_threads(value.numel() / input, 1 + numbers_for_a_thread / input,
                 [&](int64_t start, int64_t end) {
                   Pool<Number> pool(windows);
                   for (auto plane = start; plane < end; ++plane) {
                     pool(from + plane * input, to + plane * output, to_index + plane * output);
                   }
                 });
  return {largest, indices};
}

// PyTorch's kernel for CPUs takes one number at a time, unless the channels lie innermost: then as
// many as a vector holds. Planes don't mix, so any of them can be the channels of one image, at the
// cost of transpositions; so many at a time as fit a cache.
constexpr int64_t fewest_planes = 8;
constexpr int64_t numbers_at_a_time = 1 << 14;

std::tuple<at::Tensor, at::Tensor> pool_by_channels(
    const Operator<at::_ops::max_pool2d_with_indices::schema>& op, const at::Tensor& value,
    at::IntArrayRef kernel_size, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, bool ceil_mode) {
  const auto planes = value.view({1, -1, value.size(-2), value.size(-1)});
  const auto step = std::max(fewest_planes, numbers_at_a_time / (value.size(-1) * value.size(-2)));
  at::Tensor largest, indices;
  for (int64_t start = 0; start < planes.size(1); start += step) {
    const auto count = std::min(step, planes.size(1) - start);
    const auto [values, places] =
        op.call(planes.narrow(1, start, count).contiguous(at::MemoryFormat::ChannelsLast),
                kernel_size, stride, padding, dilation, ceil_mode);
    if (start == 0) {
      auto sizes = value.sizes().vec();
      std::copy_n(values.sizes().end() - 2, 2, sizes.end() - 2);
      largest = at::empty(sizes, values.options());
      indices = at::empty(sizes, places.options());
    }
    const auto put = [&](const at::Tensor& all, const at::Tensor& some) {
      all.view({1, -1, some.size(-2), some.size(-1)}).narrow(1, start, count).copy_(some);
    };
    put(largest, values);
    put(indices, places);
  }
  return {largest, indices};
}

bool has_many_planes(const at::Tensor& value) {
  return is_readable(value) && value.is_floating_point() && value.is_contiguous() &&
         value.numel() / (value.size(-1) * value.size(-2)) >= fewest_planes;
}

std::tuple<at::Tensor, at::Tensor> max_pool2d_rule(
    const Operator<at::_ops::max_pool2d_with_indices::schema>& op, Level& level,
    const at::Tensor& self, at::IntArrayRef kernel_size, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode) {
  TORCH_CHECK(self.dim() == 3 || self.dim() == 4,
              "max_pool2d: expected 3 or 4 dimensions (C, H, W), "
              "with N in front or without, but got ",
              self.dim());
  const auto value = at_front(self, level);
  const auto is_pair = [](at::IntArrayRef list) { return list.size() == 1 || list.size() == 2; };
  if (!has_many_planes(value) || !is_pair(kernel_size) || !is_pair(padding) || !is_pair(dilation) ||
      !(stride.empty() || is_pair(stride))) {
    return MergedIntoN<4>::Family<at::_ops::max_pool2d_with_indices::schema>::rule(
        op, level, self, kernel_size, stride, padding, dilation, ceil_mode);
  }
  const auto type = value.scalar_type();
  const auto windows = type == at::kFloat || type == at::kDouble
                           ? Windows::of(value, kernel_size, stride, padding, dilation, ceil_mode)
                           : std::nullopt;
  const auto [largest, indices] =
      !windows ? pool_by_channels(op, value, kernel_size, stride, padding, dilation, ceil_mode)
      : type == at::kFloat ? pool_planes<float>(value, *windows)
                           : pool_planes<double>(value, *windows);
  return {wrap(largest, 0, level), wrap(indices, 0, level)};
}

}  // namespace

void register_max_pooling_rules() {
  add<at::_ops::max_pool2d_with_indices>(max_pool2d_rule);
}

}  // namespace functorch_ext
