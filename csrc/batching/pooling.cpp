// Pooling of images: per channel, so the samples join N.
#include "batching/channels.h"
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// The random positions are (N, C, dims); an image without N takes the first.
template <class Op, int64_t rank_with_n>
std::tuple<at::Tensor, at::Tensor> fractional_max_pool_rule(Level& level, const at::Tensor& self,
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
    return has_n ? wrap(split_from(each, 0, level, self.sym_size(0)), 0, level)
                 : wrap(each, 0, level);
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
  add<at::_ops::fractional_max_pool2d>(
      fractional_max_pool_rule<at::_ops::fractional_max_pool2d, 4>);
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
  add<at::_ops::fractional_max_pool3d>(
      fractional_max_pool_rule<at::_ops::fractional_max_pool3d, 5>);
  add<at::_ops::fractional_max_pool3d_backward, MergedIntoN<5>::template Family>();

  // Made of the above.
  add_decomposition<at::_ops::max_pool1d>();
  add_decomposition<at::_ops::max_pool2d>();
  add_decomposition<at::_ops::adaptive_avg_pool1d>();
  add_decomposition<at::_ops::adaptive_avg_pool2d>();
}

}  // namespace

void register_pooling_rules() {
  register_pools();
}

}  // namespace functorch_ext
