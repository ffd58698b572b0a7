// Images on another grid of points, per channel: resizing and sampling.
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

at::Tensor affine_grid_generator_rule(Level& level, const at::Tensor& theta,
                                      c10::SymIntArrayRef size, bool align_corners) {
  TORCH_CHECK(size.size() == 4 || size.size() == 5,
              "affine_grid: expected a size (N, C, H, W) or (N, C, D, H, W), but got ", size);
  const JoinedWithN joined(theta, level);
  auto sizes = size.vec();
  sizes[0] = sizes[0] * level.batch_size;
  return joined.part(at::affine_grid_generator_symint(joined.value(), sizes, align_corners));
}

}  // namespace

void register_resampling_rules() {
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

  add<at::_ops::grid_sampler_2d, GridSampler>();
  add<at::_ops::grid_sampler_2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::grid_sampler_3d, GridSampler>();
  add<at::_ops::grid_sampler_3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::affine_grid_generator>(affine_grid_generator_rule);
}

}  // namespace functorch_ext
