// Convolution: the samples join N where the weight is shared, channels where the input is shared,
// and become groups where both differ. The same holds for both gradients, so none of them loops.
#include "batching/channels.h"
#include "batching/convolution_forms.h"
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/patches.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

struct Settings {
  c10::SymIntArrayRef stride;
  c10::SymIntArrayRef padding;
  c10::SymIntArrayRef dilation;
  bool transposed;
  c10::SymIntArrayRef output_padding;
  c10::SymInt groups;

  at::Tensor forward(const at::Tensor& input, const at::Tensor& weight,
                     const c10::SymInt& number_of_groups,
                     const std::optional<at::Tensor>& bias = {}) const {
    return at::convolution_symint(input, weight, bias, stride, padding, dilation, transposed,
                                  output_padding, number_of_groups);
  }
  auto backward(const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight,
                const c10::SymInt& number_of_groups, std::array<bool, 3> mask) const {
    return at::convolution_backward_symint(grad_output, input, weight, std::nullopt, stride,
                                           padding, dilation, transposed, output_padding,
                                           number_of_groups, mask);
  }
  // Which dimension of the weight counts output channels, and which input channels.
  int64_t output_dim() const {
    return transposed ? 1 : 0;
  }
  int64_t input_dim() const {
    return 1 - output_dim();
  }
  // Only dimension 0 of a weight runs over the channels of all groups.
  c10::SymInt groups_in(int64_t weight_dim) const {
    return weight_dim == 0 ? groups : c10::SymInt(1);
  }
};

// What stands for a tensor whose shape alone matters. `factor` more channels along `dim`.
at::Tensor of_shape(const at::Tensor& tensor, int64_t dim, const c10::SymInt& factor,
                    const Level& level) {
  auto sizes = tensor.sym_sizes().vec();
  sizes[dim] = sizes[dim] * factor;
  return value_of(tensor, level).new_empty_symint(sizes);
}

// Do the samples take turns rather than being groups of one convolution?
bool take_turns(const at::Tensor& weight) {
  const auto weights = weight.sym_numel().maybe_as_int();
  return weights && *weights > most_weights_of_a_group && weight.is_cpu();
}

// What `compute` computes of each sample of two values that have the samples in front.
template <class Compute>
at::Tensor of_each_sample(const at::Tensor& first, const at::Tensor& second, Level& level,
                          Compute&& compute) {
  const auto firsts = first.unbind(0), seconds = second.unbind(0);
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < firsts.size(); ++i) {
    results.push_back(compute(firsts[i], seconds[i]));
  }
  return wrap(at::stack(results), 0, level);
}

at::Tensor convolve(Level& level, const at::Tensor& input, const at::Tensor& weight,
                    const Settings& settings) {
  const bool batched_input = is_batched_at(input, level);
  const bool batched_weight = is_batched_at(weight, level);
  if (!batched_input && !batched_weight) {
    return wrap(settings.forward(value_of(input, level), value_of(weight, level), settings.groups),
                no_bdim, level);
  }
  if (!batched_weight) {
    const JoinedWithN joined(input, level);
    return joined.part(settings.forward(joined.value(), value_of(weight, level), settings.groups));
  }
  if (has_no_samples(level)) {
    const auto one = settings.forward(of_shape(input, 0, 1, level), of_shape(weight, 0, 1, level),
                                      settings.groups);
    return of_no_samples(input, one.sym_sizes(), level);
  }
  const auto weight_value = at_front(weight, level);
  if (batched_input && take_turns(weight)) {
    return of_each_sample(at_front(input, level), weight_value, level,
                          [&](const at::Tensor& input, const at::Tensor& weight) {
                            return settings.forward(input, weight, settings.groups);
                          });
  }
  if (batched_input) {
    const auto output =
        settings.forward(join_channels(at_front(input, level), 1), join_channels(weight_value, 0),
                         settings.groups * level.batch_size);
    return part_channels(output, 1, level);
  }
  const auto dim = settings.output_dim();
  const auto output =
      settings.forward(value_of(input, level),
                       join_channels(weight_value, dim, settings.groups_in(dim)), settings.groups);
  return part_channels(output, 1, level, settings.groups);
}

void check_arguments(const at::Tensor& input, const at::Tensor& weight, const c10::SymInt& groups) {
  TORCH_CHECK(weight.dim() >= 3 && input.dim() == weight.dim(),
              "convolution: expected an input (N, C, ...) and a weight of the same rank, at least "
              "3, but got shapes ",
              input.sym_sizes(), " and ", weight.sym_sizes());
  TORCH_CHECK(groups > 0, "convolution: expected at least one group, but got ", groups);
}

at::Tensor convolution_with(Level& level, const at::Tensor& input, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const Settings& settings) {
  check_arguments(input, weight, settings.groups);
  if (!bias || !bias->defined()) {
    return convolve(level, input, weight, settings);
  }
  if (!is_batched_at(weight, level) && !is_batched_at(*bias, level)) {
    const JoinedWithN joined(input, level);
    return joined.part(settings.forward(joined.value(), value_of(weight, level), settings.groups,
                                        value_of(*bias, level)));
  }
  const auto output = convolve(level, input, weight, settings);
  const auto shift = per_channel(at_front(*bias, level), output.dim());
  return wrap(at::add(at_front(output, level), shift), 0, level);
}

at::Tensor convolution_rule(Level& level, const at::Tensor& input, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                            c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                            bool transposed, c10::SymIntArrayRef output_padding,
                            c10::SymInt groups) {
  return convolution_with(level, input, weight, bias,
                          {stride, padding, dilation, transposed, output_padding, groups});
}

at::Tensor convolution_by_backend_rule(
    Level& level, const at::Tensor& input, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
    c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, bool benchmark, bool deterministic, bool cudnn_enabled, bool allow_tf32) {
  return convolution_with(level, input, weight, bias,
                          {stride, padding, dilation, transposed, output_padding, groups});
}

// The gradient of the input depends on the output's gradient and the weight.
at::Tensor input_gradient(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                          const at::Tensor& weight, const Settings& settings) {
  constexpr std::array<bool, 3> mask = {true, false, false};
  const bool batched_grad = is_batched_at(grad_output, level);
  const bool batched_weight = is_batched_at(weight, level);
  if (!batched_grad && !batched_weight) {
    const auto gradient =
        std::get<0>(settings.backward(value_of(grad_output, level), of_shape(input, 0, 1, level),
                                      value_of(weight, level), settings.groups, mask));
    return wrap(gradient, no_bdim, level);
  }
  if (!batched_weight) {
    const JoinedWithN joined(grad_output, level);
    return joined.part(
        std::get<0>(settings.backward(joined.value(), of_shape(input, 0, level.batch_size, level),
                                      value_of(weight, level), settings.groups, mask)));
  }
  if (has_no_samples(level)) {
    return of_no_samples(input, input.sym_sizes(), level);
  }
  const auto weight_value = at_front(weight, level);
  const auto input_of_shape = of_shape(input, 1, level.batch_size, level);
  if (batched_grad && take_turns(weight)) {
    const auto one_input = of_shape(input, 0, 1, level);
    return of_each_sample(
        at_front(grad_output, level), weight_value, level,
        [&](const at::Tensor& grad, const at::Tensor& weight) {
          return std::get<0>(settings.backward(grad, one_input, weight, settings.groups, mask));
        });
  }
  if (batched_grad) {
    const auto gradient = std::get<0>(settings.backward(
        join_channels(at_front(grad_output, level), 1), input_of_shape,
        join_channels(weight_value, 0), settings.groups * level.batch_size, mask));
    return part_channels(gradient, 1, level);
  }
  const auto dim = settings.input_dim();
  const auto gradient = std::get<0>(settings.backward(
      value_of(grad_output, level), input_of_shape,
      join_channels(weight_value, dim, settings.groups_in(dim)), settings.groups, mask));
  return part_channels(gradient, 1, level, settings.groups);
}

// Does the gradient have the shape of the output? If not, patches would reach out of the input, and
// PyTorch's kernels say what is wrong. Both have the samples in front.
bool fits(const at::Tensor& grad, const at::Tensor& input, const Patches& patches) {
  const auto rank = patches.kernel.size();
  const auto has_all = [&](const std::vector<int64_t>& list) { return list.size() == rank; };
  if (grad.dim() != input.dim() || static_cast<size_t>(input.dim()) != rank + 3 ||
      !has_all(patches.stride) || !has_all(patches.padding) || !has_all(patches.dilation)) {
    return false;
  }
  for (size_t i = 0; i < rank; ++i) {
    const auto dim = static_cast<int64_t>(i) + 3;
    const auto room = input.size(dim) + 2 * patches.padding[i] -
                      patches.dilation[i] * (patches.kernel[i] - 1) - 1;
    if (patches.padding[i] < 0 || patches.stride[i] < 1 || patches.dilation[i] < 1 || room < 0 ||
        grad.size(dim) != room / patches.stride[i] + 1) {
      return false;
    }
  }
  return grad.size(1) == input.size(1);
}

// As products with the patches of the input; undefined where that isn't the faster form, or patches
// can't be taken. Transposed, a convolution takes patches of its output.
at::Tensor weight_gradient_by_patches(const at::Tensor& grad_output, const at::Tensor& input,
                                      const at::Tensor& weight, const Settings& settings) {
  const auto& factors = settings.transposed ? input : grad_output;
  const auto& source = settings.transposed ? grad_output : input;
  if (settings.groups.maybe_as_int() != 1 || !is_readable(factors) || !is_readable(source) ||
      factors.scalar_type() != source.scalar_type() || factors.element_size() == 1 ||
      c10::isIntegralType(factors.scalar_type(), /*includeBool=*/true)) {
    return {};
  }
  const auto kernel = weight.sizes().slice(2);
  const auto channels = factors.size(2);
  if (weight.size(0) != channels || weight.size(1) != source.size(2)) {
    return {};
  }
  const auto places = factors.size(1) * c10::multiply_integers(factors.sizes().slice(3));
  const bool of_points = c10::multiply_integers(kernel) == 1;  // which are where they are needed
  // Kernels for convolution compute by vectors of 8 channels.
  if (!of_points && channels % 8 == 0 && !patches_are_faster(places, channels)) {
    return {};
  }
  // One number stands for all dimensions.
  const auto numbers = [&](c10::SymIntArrayRef sizes) {
    auto list = c10::asIntArrayRefSlow(sizes, __FILE__, __LINE__).vec();
    return list.size() == 1 ? std::vector<int64_t>(kernel.size(), list[0]) : list;
  };
  const Patches patches{kernel.vec(), numbers(settings.stride), numbers(settings.padding),
                        numbers(settings.dilation)};
  return fits(factors, source, patches) ? weight_gradient_of_patches(factors, source, patches)
                                        : at::Tensor();
}

// The gradient of the weight depends on the output's gradient and the input. Where both differ
// between samples, a group a sample computes all per-sample gradients at once.
at::Tensor weight_gradient(Level& level, const at::Tensor& grad_output, const at::Tensor& input,
                           const at::Tensor& weight, const Settings& settings) {
  constexpr std::array<bool, 3> mask = {false, true, false};
  const bool batched_grad = is_batched_at(grad_output, level);
  const bool batched_input = is_batched_at(input, level);
  if (!batched_grad && !batched_input) {
    const auto gradient =
        std::get<1>(settings.backward(value_of(grad_output, level), value_of(input, level),
                                      of_shape(weight, 0, 1, level), settings.groups, mask));
    return wrap(gradient, no_bdim, level);
  }
  if (has_no_samples(level)) {
    return of_no_samples(weight, weight.sym_sizes(), level);
  }
  if (batched_grad && batched_input) {
    const auto by_patches = weight_gradient_by_patches(at_front(grad_output, level),
                                                       at_front(input, level), weight, settings);
    if (by_patches.defined()) {
      return wrap(by_patches, 0, level);
    }
    if (take_turns(weight)) {
      const auto one_weight = of_shape(weight, 0, 1, level);
      return of_each_sample(
          at_front(grad_output, level), at_front(input, level), level,
          [&](const at::Tensor& grad, const at::Tensor& input) {
            return std::get<1>(settings.backward(grad, input, one_weight, settings.groups, mask));
          });
    }
    const auto gradient = std::get<1>(settings.backward(
        join_channels(at_front(grad_output, level), 1), join_channels(at_front(input, level), 1),
        of_shape(weight, 0, level.batch_size, level), settings.groups * level.batch_size, mask));
    return part_channels(gradient, 0, level);
  }
  const auto joined = [&](const at::Tensor& tensor) {
    return is_batched_at(tensor, level) ? join_channels(at_front(tensor, level), 1, settings.groups)
                                        : value_of(tensor, level);
  };
  const auto dim = batched_grad ? settings.output_dim() : settings.input_dim();
  const auto gradient = std::get<1>(
      settings.backward(joined(grad_output), joined(input),
                        of_shape(weight, dim, level.batch_size, level), settings.groups, mask));
  return part_channels(gradient, dim, level, settings.groups_in(dim));
}

// The gradient of the bias is the sum of the output's gradient over all but the channels.
at::Tensor bias_gradient(Level& level, const at::Tensor& grad_output) {
  const auto sum = sum_per_channel(at_front(grad_output, level), grad_output.dim());
  return wrap(sum, is_batched_at(grad_output, level) ? 0 : no_bdim, level);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward_rule(
    Level& level, const at::Tensor& grad_output, const at::Tensor& input, const at::Tensor& weight,
    at::OptionalSymIntArrayRef bias_sizes, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
    c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> output_mask) {
  check_arguments(input, weight, groups);
  const Settings settings{stride, padding, dilation, transposed, output_padding, groups};
  return {
      output_mask[0] ? input_gradient(level, grad_output, input, weight, settings) : at::Tensor(),
      output_mask[1] ? weight_gradient(level, grad_output, input, weight, settings) : at::Tensor(),
      output_mask[2] ? bias_gradient(level, grad_output) : at::Tensor()};
}

}  // namespace

void register_convolution_rules() {
  add<at::_ops::convolution>(convolution_rule);
  add<at::_ops::convolution_overrideable>(convolution_rule);
  add<at::_ops::_convolution>(convolution_by_backend_rule);
  add<at::_ops::convolution_backward>(convolution_backward_rule);

  // Made of the above.
  add_decomposition<at::_ops::conv1d>();
  add_decomposition<at::_ops::conv2d>();
  add_decomposition<at::_ops::conv3d>();
  add_decomposition<at::_ops::conv_transpose1d>();
  add_decomposition<at::_ops::conv_transpose2d_input>();
  add_decomposition<at::_ops::conv_transpose3d_input>();

  // Patches as columns: (N, C, H, W) or (C, H, W), and back.
  add<at::_ops::im2col, MergedIntoN<4>::template Family>();
  add<at::_ops::col2im, MergedIntoN<3>::template Family>();
}

}  // namespace functorch_ext
