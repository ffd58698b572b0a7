// Pooling, resizing, padding and sampling of images: per channel, so the samples join N.
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
    TORCH_CHECK(static_cast<int64_t>(input_size.size()) == grad_output.dim(),
                "expected an input_size (N, C, ...) of rank ", grad_output.dim(), ", but got ",
                input_size);
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
  TORCH_CHECK(size.size() == 4 || size.size() == 5,
              "affine_grid: expected a size (N, C, H, W) or (N, C, D, H, W), but got ", size);
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

void register_pools() {
  // Of (N, C, H, W) or (C, H, W).
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

void register_max_pooling_rules();

void register_pooling_rules() {
  register_max_pooling_rules();
  register_pools();
  register_resizing();
  register_padding();
  register_rearranging();
}

}  // namespace functorch_ext
