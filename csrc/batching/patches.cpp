// Per-sample gradients of a convolution's weight as products of matrices.
#include "batching/patches.h"

#include <ATen/Parallel.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "batching/large_memory.h"

namespace functorch_ext {

namespace {

// So many bytes of patches at a time as stay in a cache until they are multiplied.
constexpr int64_t bytes_at_a_time = 1 << 19;

using Numbers = std::vector<int64_t>;

struct Dim {
  int64_t size;
  int64_t stride;
};

// Where the elements of a block lie, the last dimension running fastest.
Numbers offsets_of(const std::vector<Dim>& dims) {
  Numbers offsets = {0};
  for (const auto& dim : dims) {
    Numbers finer;
    finer.reserve(offsets.size() * dim.size);
    for (const auto offset : offsets) {
      for (int64_t i = 0; i < dim.size; ++i) {
        finer.push_back(offset + i * dim.stride);
      }
    }
    offsets = std::move(finer);
  }
  return offsets;
}

// One patch: runs of `width` numbers next to each other. (0: any width.) A width that the compiler
// knows is a few instructions, and no call.
template <class Number, int64_t width>
Number* copy_runs(Number* to, const Number* patch, const Numbers& runs, int64_t any_width) {
  const auto count = width == 0 ? any_width : width;
  for (const auto run : runs) {
    std::memcpy(to, patch + run, count * sizeof(Number));
    to += count;
  }
  return to;
}

template <class Number>
using CopyRuns = Number* (*)(Number*, const Number*, const Numbers&, int64_t);

template <class Number, int64_t... widths>
CopyRuns<Number> copy_of_width(int64_t width, std::integer_sequence<int64_t, widths...>) {
  constexpr std::array<CopyRuns<Number>, sizeof...(widths)> copies = {
      &copy_runs<Number, widths>...};
  return copies[width < static_cast<int64_t>(copies.size()) ? width : 0];
}

// All patches of a sample: from each place in the input the same pattern of runs.
struct Pattern {
  Numbers places;
  Numbers runs;
  int64_t width;

  int64_t numbers() const {
    return static_cast<int64_t>(places.size() * runs.size()) * width;
  }
};

Pattern pattern_of(const at::Tensor& input, at::IntArrayRef outputs, const Patches& patches) {
  std::vector<Dim> places = {{input.size(1), input.stride(1)}};
  std::vector<Dim> runs = {{input.size(2), input.stride(2)}};
  for (size_t dim = 0; dim < outputs.size(); ++dim) {
    const auto stride = input.stride(3 + static_cast<int64_t>(dim));
    places.push_back({outputs[dim], stride * patches.stride[dim]});
    runs.push_back({patches.kernel[dim], stride * patches.dilation[dim]});
  }
  int64_t width = 1;
  if (runs.back().stride == 1) {
    width = runs.back().size;
    runs.pop_back();
  }
  return {offsets_of(places), offsets_of(runs), width};
}

template <class Number>
void copy_patches(const at::Tensor& columns, const at::Tensor& input, const Pattern& pattern) {
  const auto copy = copy_of_width<Number>(pattern.width, std::make_integer_sequence<int64_t, 12>());
  const auto* from = static_cast<const Number*>(input.const_data_ptr());
  auto* to = static_cast<Number*>(columns.mutable_data_ptr());
  at::parallel_for(0, input.size(0), 1, [&](int64_t start, int64_t end) {
    for (auto sample = start; sample < end; ++sample) {
      auto* next = to + sample * pattern.numbers();
      for (const auto place : pattern.places) {
        next = copy(next, from + sample * input.stride(0) + place, pattern.runs, pattern.width);
      }
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

at::Tensor padded(const at::Tensor& input, const Numbers& padding) {
  if (std::all_of(padding.begin(), padding.end(), [](int64_t pad) { return pad == 0; })) {
    return input;
  }
  Numbers pads;  // From the last dimension to the first, on either side.
  for (auto pad = padding.rbegin(); pad != padding.rend(); ++pad) {
    pads.insert(pads.end(), 2, *pad);
  }
  return at::constant_pad_nd(input, pads);
}

Numbers sizes_of_gradient(const at::Tensor& grad, const at::Tensor& input, const Patches& patches) {
  Numbers sizes = {grad.size(0), grad.size(2), input.size(2)};
  sizes.insert(sizes.end(), patches.kernel.begin(), patches.kernel.end());
  return sizes;
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
  const auto samples = grad.size(0);
  const auto outputs = grad.sizes().slice(3);
  const auto whole = padded(input, patches.padding);
  if (c10::multiply_integers(patches.kernel) == 1) {
    auto gradient = empty_in_large_pages({samples, grad.size(2), input.size(2)}, grad.options());
    at::bmm_out(gradient, grad.transpose(1, 2).flatten(2), points(whole, outputs, patches).mT());
    return gradient.reshape(sizes_of_gradient(grad, input, patches));
  }
  const auto pattern = pattern_of(whole, outputs, patches);
  const auto places = static_cast<int64_t>(pattern.places.size());
  const auto rows = grad.transpose(1, 2).reshape({samples, grad.size(2), places});
  const auto numbers = pattern.numbers();
  const auto step =
      std::clamp<int64_t>(bytes_at_a_time / (numbers * input.element_size()), 1, samples);
  const auto columns = at::empty({step, places, numbers / places}, input.options());
  const auto gradient =
      empty_in_large_pages(sizes_of_gradient(grad, input, patches), grad.options());
  const auto stack = gradient.view({samples, grad.size(2), -1});
  for (int64_t start = 0; start < samples; start += step) {
    const auto count = std::min(step, samples - start);
    const auto some = columns.narrow(0, 0, count);
    copy_patches(some, whole.narrow(0, start, count), pattern);
    auto result = stack.narrow(0, start, count);
    at::bmm_out(result, rows.narrow(0, start, count), some);
  }
  return gradient;
}

}  // namespace functorch_ext
