// Convolution by the name of a kernel: all are `convolution` with some arguments fixed, which has a
// batching rule and all derivatives.
#include "batching/channels.h"
#include "batching/composed.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using Sizes = c10::SymIntArrayRef;

// The input may be one image, without N.
at::Tensor general_convolution(const at::Tensor& input, const at::Tensor& weight,
                               const OptionalTensor& bias, Sizes stride, Sizes padding,
                               Sizes dilation, bool transposed = false, Sizes output_padding = {}) {
  const bool has_n = input.dim() == weight.dim();
  const std::vector<c10::SymInt> none(stride.size(), 0);
  const auto output = at::convolution_symint(has_n ? input : input.unsqueeze(0), weight, bias,
                                             stride, padding, dilation, transposed,
                                             output_padding.empty() ? Sizes(none) : output_padding,
                                             /*groups=*/1);
  return has_n ? output : output.squeeze(0);
}

at::Tensor plain(const at::Tensor& input, const at::Tensor& weight, Sizes,
                 const OptionalTensor& bias, Sizes stride, Sizes padding) {
  const std::vector<c10::SymInt> ones(stride.size(), 1);
  return general_convolution(input, weight, bias, stride, padding, ones);
}

at::Tensor dilated(const at::Tensor& input, const at::Tensor& weight, Sizes,
                   const OptionalTensor& bias, Sizes stride, Sizes padding, Sizes dilation) {
  return general_convolution(input, weight, bias, stride, padding, dilation);
}

at::Tensor transposed(const at::Tensor& input, const at::Tensor& weight, Sizes,
                      const OptionalTensor& bias, Sizes stride, Sizes padding, Sizes output_padding,
                      Sizes dilation) {
  return general_convolution(input, weight, bias, stride, padding, dilation, true, output_padding);
}

at::Tensor with_groups(const at::Tensor& input, const at::Tensor& weight,
                       const OptionalTensor& bias, Sizes padding, Sizes stride, Sizes dilation,
                       c10::SymInt groups) {
  const std::vector<c10::SymInt> none(stride.size(), 0);
  return at::convolution_symint(input, weight, bias, stride, padding, dilation, false, none,
                                groups);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> gradients(const at::Tensor& grad,
                                                         const at::Tensor& input,
                                                         const at::Tensor& weight, Sizes,
                                                         Sizes stride, Sizes padding,
                                                         std::array<bool, 3> wanted) {
  const std::vector<c10::SymInt> ones(stride.size(), 1);
  const std::vector<c10::SymInt> none(stride.size(), 0);
  const std::vector<c10::SymInt> channels = {weight.sym_size(0)};
  return at::convolution_backward_symint(grad, input, weight, Sizes(channels), stride, padding,
                                         ones, false, none, 1, wanted);
}

// Time first: (time, N, channels), weight (time, in, out).
at::Tensor time_first(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                      int64_t padding) {
  const auto output =
      at::conv1d(input.permute({1, 2, 0}), weight.permute({2, 1, 0}), bias, /*stride=*/1, padding);
  return output.permute({2, 0, 1});
}

}  // namespace

void register_convolution_kernels_rules() {
  Composed<at::_ops::_slow_conv2d_forward, &plain>::add();
  Composed<at::_ops::slow_conv3d_forward, &plain>::add();
  Composed<at::_ops::_slow_conv2d_backward_output_mask, &gradients>::add();
  Composed<at::_ops::slow_conv_dilated2d, &dilated>::add();
  Composed<at::_ops::slow_conv_dilated3d, &dilated>::add();
  Composed<at::_ops::slow_conv_transpose2d, &transposed>::add();
  Composed<at::_ops::slow_conv_transpose3d, &transposed>::add();
  Composed<at::_ops::mkldnn_convolution, &with_groups>::add();
  Composed<at::_ops::conv_tbc, &time_first>::add();
}

}  // namespace functorch_ext
