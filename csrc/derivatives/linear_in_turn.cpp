#include "derivatives/linear_in_turn.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>

#include "autodiff/plane.h"
#include "batching/physical.h"
#include "engine/derivatives.h"
#include "engine/routing.h"

namespace functorch_ext {

namespace {

bool is_symbolic(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

// How many layers: matrices of a stack, or of the samples that have each its own.
int64_t count_of_layers(const at::Tensor& weight) {
  if (weight.dim() == 3) {
    return weight.size(0);
  }
  const bool is_own = is_wrapper(weight) && wrapper_of(weight)->is_batched();
  return is_own ? wrapper_of(weight)->level().batch_size.maybe_as_int().value_or(0) : 0;
}

bool is_plain_stack(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return tensor.dim() >= 3 && (type == at::kFloat || type == at::kDouble) && is_readable(tensor);
}

std::optional<LayerGradients> gradients_of_stacks(const at::Tensor& cotangent,
                                                  const at::Tensor& input, const at::Tensor& weight,
                                                  std::array<bool, 3> wanted) {
  const auto fits = [&](const at::Tensor& tensor) {
    return !tensor.defined() ||
           (is_plain_stack(tensor) && tensor.scalar_type() == cotangent.scalar_type());
  };
  if (!fits(cotangent) || !fits(input) || !fits(weight)) {
    return std::nullopt;
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return layer_gradients_in_turn(cotangent, input, weight, wanted);
}

}  // namespace

bool are_large_layers(const at::Tensor& input, const at::Tensor& weight) {
  if (is_symbolic(input) || is_symbolic(weight) || weight.size(-1) == 0) {
    return false;
  }
  const auto layers = count_of_layers(weight);
  const auto numbers = input.numel() / (weight.dim() == 3 ? std::max<int64_t>(layers, 1) : 1);
  const auto rows = numbers / weight.size(-1);
  return are_better_in_turn(layers, rows * (weight.size(-2) + weight.size(-1)) * weight.itemsize());
}

std::optional<LayerGradients> linear_gradients_in_turn(const at::Tensor& cotangent,
                                                       const at::Tensor& input,
                                                       const at::Tensor& weight,
                                                       std::array<bool, 3> wanted) {
  if (c10::GradMode::is_enabled() || any_tangent(cotangent, input, weight)) {
    return std::nullopt;
  }
  const auto level = plane_of({cotangent, input, weight});
  if (!level) {
    const auto unrecorded = [](const at::Tensor& tensor) {
      return tensor.defined() ? tensor.detach() : tensor;
    };
    return gradients_of_stacks(unrecorded(cotangent), unrecorded(input), unrecorded(weight),
                               wanted);
  }
  if (!level->has_samples) {
    return std::nullopt;
  }
  const PlaneBelow below(*level);
  const auto stack = [&](const at::Tensor& tensor) {
    return tensor.defined() ? expanded_at_front(tensor, *level) : tensor;
  };
  auto found = gradients_of_stacks(stack(cotangent), stack(input), stack(weight), wanted);
  if (found) {
    for (auto* gradient : {&found->input, &found->weight, &found->bias}) {
      *gradient = gradient->defined() ? wrap(*gradient, 0, *level) : at::Tensor();
    }
  }
  return found;
}

}  // namespace functorch_ext
