// Per-sample gradients of a convolution's weight as products of matrices.
#include "batching/patches.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "batching/large_memory.h"
#include "batching/stacked_products.h"
#include "engine/threads.h"

namespace functorch_ext {

namespace {

// So many bytes of patches at a time as stay in a cache until they are multiplied.
constexpr int64_t bytes_at_a_time = 1 << 19;

using Numbers = std::vector<int64_t>;

// Where the patches of one channel of one image lie. A patch has a number for each place in the
// kernel, and those of one place, from all patches, are copied row by row: a row of outputs needs
// numbers from one row of the input. Rows, and parts of a row, may lie in the padding.
struct Pattern {
  // For each place in the kernel but along the last dimension, where the rows start, or `outside`.
  std::vector<Numbers> rows;
  // For each place along the last dimension, the first number of a row.
  Numbers starts;
  int64_t stride;   // of the numbers that outputs next to each other need
  int64_t outputs;  // in a row
  int64_t extent;   // of the input's rows
  int64_t step;     // from one number of the input's rows to the next

  static constexpr int64_t outside = -1;
};

Pattern pattern_of(const at::Tensor& input, at::IntArrayRef outputs, const Patches& patches) {
  const auto last = outputs.size() - 1;
  Pattern pattern{{{0}}, {}, patches.stride[last], outputs[last], input.size(-1), input.stride(-1)};
  for (size_t dim = 0; dim < last; ++dim) {
    const auto size = input.size(3 + static_cast<int64_t>(dim));
    const auto step = input.stride(3 + static_cast<int64_t>(dim));
    std::vector<Numbers> finer;
    for (const auto& rows : pattern.rows) {
      for (int64_t k = 0; k < patches.kernel[dim]; ++k) {
        auto& fine = finer.emplace_back();
        for (const auto row : rows) {
          for (int64_t output = 0; output < outputs[dim]; ++output) {
            const auto i =
                output * patches.stride[dim] + k * patches.dilation[dim] - patches.padding[dim];
            const bool inside = row != Pattern::outside && i >= 0 && i < size;
            fine.push_back(inside ? row + i * step : Pattern::outside);
          }
        }
      }
    }
    pattern.rows = std::move(finer);
  }
  for (int64_t k = 0; k < patches.kernel[last]; ++k) {
    pattern.starts.push_back(k * patches.dilation[last] - patches.padding[last]);
  }
  return pattern;
}

// A row: outputs [first, end) have numbers in the input.
template <class Number>
Number* copy_row(Number* to, const Number* row, const Pattern& pattern, int64_t start,
                 int64_t first, int64_t end) {
  std::fill_n(to, first, Number());
  const auto* from = row + (start + first * pattern.stride) * pattern.step;
  const auto step = pattern.stride * pattern.step;
  if (step == 1) {
    std::memcpy(to + first, from, (end - first) * sizeof(Number));
  } else {
    for (auto i = first; i < end; ++i, from += step) {
      to[i] = *from;
    }
  }
  std::fill(to + end, to + pattern.outputs, Number());
  return to + pattern.outputs;
}

// The patches of one channel, of all images of a sample.
template <class Number>
void copy_channel(Number* to, const Number* from, int64_t images, int64_t image_stride,
                  const Pattern& pattern) {
  for (const auto& rows : pattern.rows) {
    for (const auto start : pattern.starts) {
      // The outputs i with 0 <= start + i * stride < extent.
      const auto first =
          std::clamp<int64_t>((pattern.stride - 1 - start) / pattern.stride, 0, pattern.outputs);
      const auto end = std::clamp<int64_t>(
          start < pattern.extent ? (pattern.extent - start - 1) / pattern.stride + 1 : 0, first,
          pattern.outputs);
      for (int64_t image = 0; image < images; ++image) {
        const auto* channel = from + image * image_stride;
        for (const auto row : rows) {
          if (row == Pattern::outside) {
            to = std::fill_n(to, pattern.outputs, Number());
          } else {
            to = copy_row(to, channel + row, pattern, start, first, end);
          }
        }
      }
    }
  }
}

template <class Number>
void copy_patches(const at::Tensor& columns, const at::Tensor& input, const Pattern& pattern) {
  const auto* from = static_cast<const Number*>(input.const_data_ptr());
  auto* to = static_cast<Number*>(columns.mutable_data_ptr());
  const auto channels = input.size(2);
  const auto numbers = columns.stride(0) / channels;
  on_all_threads(input.size(0) * channels, 16, [&](int64_t start, int64_t end) {
    for (auto i = start; i < end; ++i) {
      const auto* channel = from + i / channels * input.stride(0) + i % channels * input.stride(2);
      copy_channel(to + i * numbers, channel, input.size(1), input.stride(1), pattern);
    }
  });
}

void copy_patches(const at::Tensor& columns, const at::Tensor& input, const Pattern& pattern) {
  switch (input.element_size()) {
    case 2:
      return copy_patches<uint16_t>(columns, input, pattern);
    case 4:
      return copy_patches<uint32_t>(columns, input, pattern);
    case 8:
      return copy_patches<uint64_t>(columns, input, pattern);
    default:
      return copy_patches<c10::complex<double>>(columns, input, pattern);
  }
}

// Patches of one point each, (B, C, places): a part of the input.
at::Tensor points(at::Tensor input, at::IntArrayRef outputs, const Patches& patches) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto stride = patches.stride[i];
    input = input.slice(3 + static_cast<int64_t>(i), 0, (outputs[i] - 1) * stride + 1, stride);
  }
  return input.transpose(1, 2).flatten(2);
}

}  // namespace

at::Tensor weight_gradient_of_patches(const at::Tensor& grad, const at::Tensor& input,
                                      const Patches& patches) {
  const auto samples = grad.size(0), channels = grad.size(2);
  const auto outputs = grad.sizes().slice(3);
  Numbers sizes = {samples, channels, input.size(2)};
  sizes.insert(sizes.end(), patches.kernel.begin(), patches.kernel.end());
  const auto gradient = empty_in_large_pages(sizes, grad.options());
  const auto stack = gradient.view({samples, channels, -1});
  const auto rows = grad.transpose(1, 2).flatten(2);
  const auto is_0 = [](int64_t number) { return number == 0; };
  if (c10::multiply_integers(patches.kernel) == 1 &&
      std::all_of(patches.padding.begin(), patches.padding.end(), is_0)) {
    multiply_stacks(stack, rows, points(input, outputs, patches).mT());
    return gradient;
  }
  const auto pattern = pattern_of(input, outputs, patches);
  const auto numbers = stack.size(2) * rows.size(2);
  const auto most = std::max<int64_t>(bytes_at_a_time / (numbers * input.element_size()), 1);
  const auto compute = [&](int64_t begin, int64_t end) {
    const auto step = std::min(most, end - begin);
    const auto columns = at::empty({step, stack.size(2), rows.size(2)}, input.options());
    for (auto start = begin; start < end; start += step) {
      const auto count = std::min(step, end - start);
      const auto some = columns.narrow(0, 0, count);
      copy_patches(some, input.narrow(0, start, count), pattern);
      multiply_stacks(stack.narrow(0, start, count), rows.narrow(0, start, count), some.mT());
    }
  };
  // Patches are multiplied on the thread that copied them, in whose cache they are.
  if (keeps_threads_busy(samples)) {
    on_all_threads(samples, 1, compute);
  } else {
    compute(0, samples);
  }
  return gradient;
}

}  // namespace functorch_ext
