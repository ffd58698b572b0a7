// Pooling, resizing, padding and sampling of images: per channel, so the samples join N.
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "batching/channels.h"
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Gradients of resizing take the size of their input too, (N, C, ...).
template <class Signature>
struct ResizingBackward;

template <class... Rest>
struct ResizingBackward<at::Tensor(const at::Tensor&, c10::SymIntArrayRef, c10::SymIntArrayRef,
                                   Rest...)> {
  using Signature = at::Tensor(const at::Tensor&, c10::SymIntArrayRef, c10::SymIntArrayRef,
                               Rest...);

  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& grad_output,
                         c10::SymIntArrayRef output_size, c10::SymIntArrayRef input_size,
                         Rest... rest) {
    const JoinedWithN joined(grad_output, level);
    auto size = input_size.vec();
    size[0] = size[0] * level.batch_size;
    return joined.part(op.call(joined.value(), output_size, size, rest...));
  }
};

// Resizing and the like of one tensor that always has N.
template <class Signature>
struct JoinsN;

template <class... Rest>
struct JoinsN<at::Tensor(const at::Tensor&, Rest...)> {
  using Signature = at::Tensor(const at::Tensor&, Rest...);

  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& self,
                         Rest... rest) {
    const JoinedWithN joined(self, level);
    return joined.part(op.call(joined.value(), rest...));
  }
};

// grid_sampler: samples of a shared image are more points of its grid, and images that share a grid
// are more channels.
template <class Signature>
struct GridSampler;

template <class... Rest>
struct GridSampler<at::Tensor(const at::Tensor&, const at::Tensor&, Rest...)> {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, Rest...);

  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& input,
                         const at::Tensor& grid, Rest... rest) {
    const bool batched_input = is_batched_at(input, level);
    const bool batched_grid = is_batched_at(grid, level);
    if ((batched_input && batched_grid) || has_no_samples(level)) {
      const auto joined = [&](const at::Tensor& tensor) {
        return merge_into(expanded_at_front(tensor, level), 0);
      };
      const auto output = op.call(joined(input), joined(grid), rest...);
      auto sizes = output.sym_sizes().vec();
      sizes[0] = input.sym_size(0);
      return wrap(output.reshape_symint(physical_sizes(sizes, level)), 0, level);
    }
    if (batched_input) {
      const auto channels = join_channels(at_front(input, level), 1);
      return part_channels(op.call(channels, value_of(grid, level), rest...), 1, level);
    }
    const auto points = join_channels(at_front(grid, level), 1);
    return part_channels(op.call(value_of(input, level), points, rest...), 2, level);
  }
};

at::Tensor affine_grid_generator(Level& level, const at::Tensor& theta, c10::SymIntArrayRef size,
                                 bool align_corners) {
  const JoinedWithN joined(theta, level);
  auto sizes = size.vec();
  sizes[0] = sizes[0] * level.batch_size;
  return joined.part(at::affine_grid_generator_symint(joined.value(), sizes, align_corners));
}

// The random positions are (N, C, dims); an image without N takes the first.
template <class Op, int64_t rank_with_n>
std::tuple<at::Tensor, at::Tensor> fractional_max_pool(Level& level, const at::Tensor& self,
                                                       at::IntArrayRef kernel_size,
                                                       at::IntArrayRef output_size,
                                                       const at::Tensor& random_samples) {
  const bool has_n = self.dim() == rank_with_n;
  const auto samples = expanded_at_front(random_samples, level);
  const auto positions = merge_into(has_n ? samples : samples.narrow(1, 0, 1), 0);
  const auto value = expanded_at_front(self, level);
  const auto result =
      Op::call(has_n ? merge_into(value, 0) : value, kernel_size, output_size, positions);
  const auto part = [&](const at::Tensor& each) {
    return has_n ? wrap(split_from(each, 0, level), 0, level) : wrap(each, 0, level);
  };
  return {part(std::get<0>(result)), part(std::get<1>(result))};
}

// Windows without padding and gaps, by rows and columns.
struct Windows {
  std::array<int64_t, 2> kernel, stride, input, output;

  static std::optional<Windows> of(const at::Tensor& value, at::IntArrayRef kernel_size,
                                   at::IntArrayRef stride, at::IntArrayRef padding,
                                   at::IntArrayRef dilation, bool ceil_mode) {
    const auto all = [](at::IntArrayRef list, int64_t number) {
      return std::all_of(list.begin(), list.end(), [&](auto each) { return each == number; });
    };
    if (ceil_mode || !all(padding, 0) || !all(dilation, 1) || kernel_size.empty()) {
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

// Lets GCC take several numbers at a time; comparisons needn't report what isn't a number.
#if defined(__GNUC__) && !defined(__clang__)
#define FUNCTORCH_EXT_VECTORIZED __attribute__((optimize("O3", "no-trapping-math")))
#else
#define FUNCTORCH_EXT_VECTORIZED
#endif

// One row of outputs: the largest number of each window and its place in the plane. Not a number
// counts as larger than any. Masks instead of branches, which nothing could predict.
template <bool next_to_each_other, class Number>
FUNCTORCH_EXT_VECTORIZED void pool_row(const Number* __restrict plane, int64_t row,
                                       const Windows& windows, Number* __restrict largest,
                                       int32_t* __restrict places) {
  const auto stride = next_to_each_other ? 1 : windows.stride[1];
  const auto width = windows.output[1];
  for (int64_t i = 0; i < windows.kernel[0]; ++i) {
    for (int64_t j = 0; j < windows.kernel[1]; ++j) {
      const auto start = static_cast<int32_t>((row * windows.stride[0] + i) * windows.input[1] + j);
      const auto* numbers = plane + start;
      const bool first = i == 0 && j == 0;
      for (int64_t column = 0; column < width; ++column) {
        const auto number = numbers[column * stride];
        const auto before = largest[column];
        const int32_t larger =
            -static_cast<int32_t>(first | (number > before) | (number != number));
        const auto place = start + static_cast<int32_t>(column * stride);
        largest[column] = larger ? number : before;
        places[column] = (place & larger) | (places[column] & ~larger);
      }
    }
  }
}

#undef FUNCTORCH_EXT_VECTORIZED

// PyTorch's kernel takes one number at a time where the channels don't lie innermost.
template <class Number>
std::tuple<at::Tensor, at::Tensor> pool_planes(const at::Tensor& value, const Windows& windows) {
  auto sizes = value.sizes().vec();
  std::copy(windows.output.begin(), windows.output.end(), sizes.end() - 2);
  const auto largest = at::zeros(sizes, value.options());
  const auto indices = at::empty(sizes, value.options().dtype(at::kLong));
  const auto* from = value.const_data_ptr<Number>();
  auto* to = largest.mutable_data_ptr<Number>();
  auto* to_index = indices.mutable_data_ptr<int64_t>();
  const auto input = windows.input[0] * windows.input[1];
  const auto output = windows.output[0] * windows.output[1];
  at::parallel_for(0, value.numel() / input, 1 + 32768 / input, [&](int64_t start, int64_t end) {
    std::vector<int32_t> places(windows.output[1]);
    for (auto plane = start; plane < end; ++plane) {
      for (int64_t row = 0; row < windows.output[0]; ++row) {
        const auto offset = plane * output + row * windows.output[1];
        const auto pool =
            windows.stride[1] == 1 ? &pool_row<true, Number> : &pool_row<false, Number>;
        pool(from + plane * input, row, windows, to + offset, places.data());
        std::copy(places.begin(), places.end(), to_index + offset);
      }
    }
  });
  return {largest, indices};
}

// PyTorch's kernel for CPUs takes one number at a time, unless the channels lie innermost: then as
// many as a vector holds. Planes don't mix, so any of them can be the channels of one image, at the
// cost of transpositions; so many at a time as fit a cache.
constexpr int64_t fewest_planes = 8;
constexpr int64_t numbers_at_a_time = 1 << 14;

bool pools_fast_by_channels(const at::Tensor& value) {
  return value.dim() >= 4 && !is_wrapper(value) && value.is_cpu() && value.is_floating_point() &&
         value.is_contiguous() && value.numel() > 0 && !value.requires_grad() &&
         !value._fw_grad(/*level=*/0).defined() &&
         value.numel() / (value.size(-1) * value.size(-2)) >= fewest_planes;
}

std::tuple<at::Tensor, at::Tensor> max_pool2d(
    const Operator<at::_ops::max_pool2d_with_indices::schema>& op, Level& level,
    const at::Tensor& self, at::IntArrayRef kernel_size, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool ceil_mode) {
  const auto value = at_front(self, level);
  if (!pools_fast_by_channels(value)) {
    return MergedIntoN<4>::Family<at::_ops::max_pool2d_with_indices::schema>::rule(
        op, level, self, kernel_size, stride, padding, dilation, ceil_mode);
  }
  if (const auto windows = Windows::of(value, kernel_size, stride, padding, dilation, ceil_mode)) {
    const auto type = value.scalar_type();
    if (type == at::kFloat || type == at::kDouble) {
      const auto [values, places] = type == at::kFloat ? pool_planes<float>(value, *windows)
                                                       : pool_planes<double>(value, *windows);
      return {wrap(values, 0, level), wrap(places, 0, level)};
    }
  }
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
    largest.view({1, -1, values.size(-2), values.size(-1)}).narrow(1, start, count).copy_(values);
    indices.view({1, -1, values.size(-2), values.size(-1)}).narrow(1, start, count).copy_(places);
  }
  return {wrap(largest, 0, level), wrap(indices, 0, level)};
}

void register_pools() {
  // Of (N, C, H, W) or (C, H, W).
  add<at::_ops::max_pool2d_with_indices>(max_pool2d);
  add<at::_ops::max_pool2d_with_indices_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::avg_pool2d, MergedIntoN<4>::template Family>();
  add<at::_ops::avg_pool2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::_adaptive_avg_pool2d, MergedIntoN<4>::template Family>();
  add<at::_ops::_adaptive_avg_pool2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::adaptive_max_pool2d, MergedIntoN<4>::template Family>();
  add<at::_ops::adaptive_max_pool2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::max_unpool2d, MergedIntoN<4>::template Family>();
  add<at::_ops::fractional_max_pool2d>(fractional_max_pool<at::_ops::fractional_max_pool2d, 4>);
  add<at::_ops::fractional_max_pool2d_backward, MergedIntoN<4>::template Family>();

  // Of (N, C, D, H, W) or (C, D, H, W).
  add<at::_ops::max_pool3d_with_indices, MergedIntoN<5>::template Family>();
  add<at::_ops::max_pool3d_with_indices_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::avg_pool3d, MergedIntoN<5>::template Family>();
  add<at::_ops::avg_pool3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::_adaptive_avg_pool3d, MergedIntoN<5>::template Family>();
  add<at::_ops::_adaptive_avg_pool3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::adaptive_max_pool3d, MergedIntoN<5>::template Family>();
  add<at::_ops::adaptive_max_pool3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::max_unpool3d, MergedIntoN<5>::template Family>();
  add<at::_ops::fractional_max_pool3d>(fractional_max_pool<at::_ops::fractional_max_pool3d, 5>);
  add<at::_ops::fractional_max_pool3d_backward, MergedIntoN<5>::template Family>();

  // Made of the above.
  add_decomposition<at::_ops::max_pool1d>();
  add_decomposition<at::_ops::max_pool2d>();
  add_decomposition<at::_ops::adaptive_avg_pool1d>();
  add_decomposition<at::_ops::adaptive_avg_pool2d>();
}

void register_resizing() {
  add<at::_ops::upsample_nearest1d, JoinsN>();
  add<at::_ops::upsample_nearest2d, JoinsN>();
  add<at::_ops::upsample_nearest3d, JoinsN>();
  add<at::_ops::_upsample_nearest_exact1d, JoinsN>();
  add<at::_ops::_upsample_nearest_exact2d, JoinsN>();
  add<at::_ops::_upsample_nearest_exact3d, JoinsN>();
  add<at::_ops::upsample_linear1d, JoinsN>();
  add<at::_ops::upsample_bilinear2d, JoinsN>();
  add<at::_ops::upsample_trilinear3d, JoinsN>();
  add<at::_ops::upsample_bicubic2d, JoinsN>();
  add<at::_ops::_upsample_bilinear2d_aa, JoinsN>();
  add<at::_ops::_upsample_lanczos2d_aa, JoinsN>();
  add<at::_ops::_upsample_bicubic2d_aa, JoinsN>();

  add<at::_ops::upsample_nearest1d_backward, ResizingBackward>();
  add<at::_ops::upsample_nearest2d_backward, ResizingBackward>();
  add<at::_ops::upsample_nearest3d_backward, ResizingBackward>();
  add<at::_ops::_upsample_nearest_exact1d_backward, ResizingBackward>();
  add<at::_ops::_upsample_nearest_exact2d_backward, ResizingBackward>();
  add<at::_ops::_upsample_nearest_exact3d_backward, ResizingBackward>();
  add<at::_ops::upsample_linear1d_backward, ResizingBackward>();
  add<at::_ops::upsample_bilinear2d_backward, ResizingBackward>();
  add<at::_ops::upsample_trilinear3d_backward, ResizingBackward>();
  add<at::_ops::upsample_bicubic2d_backward, ResizingBackward>();
  add<at::_ops::_upsample_bilinear2d_aa_backward, ResizingBackward>();
  add<at::_ops::_upsample_lanczos2d_aa_backward, ResizingBackward>();
  add<at::_ops::_upsample_bicubic2d_aa_backward, ResizingBackward>();
}

void register_padding() {
  // Padding names the last dimensions, and takes any number of others.
  add<at::_ops::constant_pad_nd, Leading>();

  add<at::_ops::reflection_pad1d, MergedIntoN<3>::template Family>();
  add<at::_ops::reflection_pad1d_backward, MergedIntoN<3>::template Family>();
  add<at::_ops::reflection_pad2d, MergedIntoN<4>::template Family>();
  add<at::_ops::reflection_pad2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::reflection_pad3d, MergedIntoN<5>::template Family>();
  add<at::_ops::reflection_pad3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::replication_pad1d, MergedIntoN<3>::template Family>();
  add<at::_ops::replication_pad1d_backward, MergedIntoN<3>::template Family>();
  add<at::_ops::replication_pad2d, MergedIntoN<4>::template Family>();
  add<at::_ops::replication_pad2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::replication_pad3d, MergedIntoN<5>::template Family>();
  add<at::_ops::replication_pad3d_backward, MergedIntoN<5>::template Family>();
}

void register_rearranging() {
  add<at::_ops::pixel_shuffle, Leading>();
  add<at::_ops::pixel_unshuffle, Leading>();
  add<at::_ops::channel_shuffle, JoinsN>();

  add<at::_ops::grid_sampler_2d, GridSampler>();
  add<at::_ops::grid_sampler_2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::grid_sampler_3d, GridSampler>();
  add<at::_ops::grid_sampler_3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::affine_grid_generator>(affine_grid_generator);
}

}  // namespace

void register_pooling_rules() {
  register_pools();
  register_resizing();
  register_padding();
  register_rearranging();
}

}  // namespace functorch_ext
