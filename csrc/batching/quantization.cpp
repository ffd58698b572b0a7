// Fake quantization with a scale for each channel: samples are more channels.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// The arguments of a sample as those of one tensor whose channels, in front, are all samples'.
class JoinedChannels {
 public:
  JoinedChannels(const at::Tensor& self, int64_t axis, const Level& level)
      : level_(level),
        axis_(c10::maybe_wrap_dim(axis, self.dim())),
        channels_(self.sym_size(axis_)) {}

  at::Tensor with_channels(const at::Tensor& tensor) const {
    return expanded_at_front(tensor, level_).movedim(axis_ + 1, 1).flatten(0, 1);
  }
  at::Tensor of_channels(const at::Tensor& tensor) const {
    return expanded_at_front(tensor, level_).flatten(0, 1);
  }
  at::Tensor parted(const at::Tensor& result) const {
    return wrap(samples_in_front(result).movedim(1, axis_ + 1), 0, level_);
  }
  at::Tensor parted_channels(const at::Tensor& result) const {
    return wrap(samples_in_front(result), 0, level_);
  }

 private:
  at::Tensor samples_in_front(const at::Tensor& result) const {
    auto sizes = result.sym_sizes().vec();
    sizes[0] = channels_;
    sizes.insert(sizes.begin(), level_.batch_size);
    return result.reshape_symint(sizes);
  }

  const Level& level_;
  const int64_t axis_;
  const c10::SymInt channels_;
};

std::tuple<at::Tensor, at::Tensor> per_channel_rule(Level& level, const at::Tensor& self,
                                                    const at::Tensor& scale,
                                                    const at::Tensor& zero_point, int64_t axis,
                                                    int64_t quant_min, int64_t quant_max) {
  const JoinedChannels joined(self, axis, level);
  const auto [value, mask] = at::fake_quantize_per_channel_affine_cachemask(
      joined.with_channels(self), joined.of_channels(scale), joined.of_channels(zero_point),
      /*axis=*/0, quant_min, quant_max);
  return {joined.parted(value), joined.parted(mask)};
}

at::Tensor learnable_rule(Level& level, const at::Tensor& self, const at::Tensor& scale,
                          const at::Tensor& zero_point, int64_t axis, int64_t quant_min,
                          int64_t quant_max, double grad_factor) {
  const JoinedChannels joined(self, axis, level);
  return joined.parted(at::_fake_quantize_learnable_per_channel_affine(
      joined.with_channels(self), joined.of_channels(scale), joined.of_channels(zero_point),
      /*axis=*/0, quant_min, quant_max, grad_factor));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> learnable_backward_rule(
    Level& level, const at::Tensor& grad, const at::Tensor& self, const at::Tensor& scale,
    const at::Tensor& zero_point, int64_t axis, int64_t quant_min, int64_t quant_max,
    double grad_factor) {
  const JoinedChannels joined(self, axis, level);
  const auto [by_self, by_scale, by_zero_point] =
      at::_fake_quantize_learnable_per_channel_affine_backward(
          joined.with_channels(grad), joined.with_channels(self), joined.of_channels(scale),
          joined.of_channels(zero_point), /*axis=*/0, quant_min, quant_max, grad_factor);
  return {joined.parted(by_self), joined.parted_channels(by_scale),
          joined.parted_channels(by_zero_point)};
}

}  // namespace

void register_quantization_rules() {
  add<at::_ops::fake_quantize_per_channel_affine_cachemask>(per_channel_rule);
  add<at::_ops::_fake_quantize_learnable_per_channel_affine>(learnable_rule);
  add<at::_ops::_fake_quantize_learnable_per_channel_affine_backward>(learnable_backward_rule);
}

}  // namespace functorch_ext
