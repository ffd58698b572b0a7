// Linear layers as one node of autograd's graph. PyTorch makes them of a transposition, a product
// and, for input of any rank but 2, views to and from a matrix: a node each, and more in the graph
// of the backward pass, which cost more than the arithmetic of a small layer.
#include "derivatives/linear.h"
#include "derivatives/given.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmv.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "batching/physical.h"
#include "derivatives/linear_in_turn.h"
#include "derivatives/numbers_alike.h"
#include "derivatives/register.h"
#include "derivatives/weight_of_steps.h"
#include "engine/derivatives.h"
#include "engine/routing.h"
#include "releases/nodes.h"

namespace functorch_ext {

namespace {

using OptionalTensor = std::optional<at::Tensor>;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// The gradients of one layer, or of a stack of layers with a batch of inputs each. They are made of
// operators that have all derivatives.
class LinearBackward final : public torch::autograd::Node {
 public:
  LinearBackward(torch::autograd::edge_list&& edges, const at::Tensor& input,
                 const at::Tensor& weight)
      : Node(std::move(edges)),
        sizes_(input.sym_sizes().vec()),
        is_stack_(weight.dim() == 3),
        are_large_(are_large_layers(input, weight)),
        weight_of_steps_(dynamic_cast<WeightOfSteps*>(next_edge(for_weight).function.get())) {
    if (needs(for_weight)) {
      input_ = SavedVariable(input, /*is_output=*/false);
    }
    if (needs(for_input)) {
      weight_ = SavedVariable(weight, /*is_output=*/false);
    }
  }

  // Not a name that a class of the program can have, whose node would be called after it.
  std::string name() const override {
    return "functorch_ext::LinearBackward";
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    input_.reset_data();
    weight_.reset_data();
  }

  variable_list apply(variable_list&& cotangents) override {
    const std::lock_guard lock(mutex_);
    variable_list gradients(3);
    if (!cotangents[0].defined()) {
      return gradients;
    }
    const auto weight = wants(for_input) ? weight_.unpack() : at::Tensor();
    const auto input = wants(for_weight) ? input_.unpack() : at::Tensor();
    auto found = gradients_of(cotangents[0], input, weight);
    if (found.input.defined() && !is_stack_ && sizes_.size() != 2) {
      found.input = found.input.view_symint(sizes_);
    }
    gradients[for_input] = std::move(found.input);
    gradients[for_weight] = std::move(found.weight);
    gradients[for_bias] = std::move(found.bias);
    return gradients;
  }

 private:
  enum : size_t { for_input, for_weight, for_bias };

  bool needs(size_t argument) const {
    return next_edge(argument).is_valid();
  }
  bool wants(size_t argument) const {
    return task_should_compute_output(argument);
  }

  LayerGradients gradients_of(const at::Tensor& cotangent, const at::Tensor& input,
                              const at::Tensor& weight) const {
    if (are_large_ && !weight_of_steps_) {
      if (auto found = linear_gradients_in_turn(
              cotangent, input, weight, {wants(for_input), wants(for_weight), wants(for_bias)})) {
        return *std::move(found);
      }
    }
    LayerGradients result;
    const auto rows = as_rows(cotangent);
    if (wants(for_input)) {
      result.input = product(rows, weight);
    }
    if (wants(for_weight)) {
      auto inputs = as_rows(input);
      if (weight_of_steps_) {
        weight_of_steps_->add(rows, std::move(inputs));
      } else {
        result.weight = product(rows.mT(), inputs);
      }
    }
    if (wants(for_bias)) {
      result.bias = rows.sum(-2);
    }
    return result;
  }

  at::Tensor as_rows(const at::Tensor& tensor) const {
    return is_stack_ || tensor.dim() == 2 ? tensor : tensor.flatten(0, -2);
  }
  at::Tensor product(const at::Tensor& left, const at::Tensor& right) const {
    return is_stack_ ? product_of_stacks(left, right) : at::mm(left, right);
  }

  const std::vector<c10::SymInt> sizes_;
  const bool is_stack_;
  const bool are_large_;
  WeightOfSteps* const weight_of_steps_;  // kept alive by the edge to it
  SavedVariable input_;
  SavedVariable weight_;
};

// Do the columns of each matrix lie in one piece of memory, and not its rows?
bool is_transposed(const at::Tensor& stack) {
  return stack.sym_stride(1) == 1 && stack.sym_stride(2) != 1;
}

class ProductOfStacksBackward final : public torch::autograd::Node {
 public:
  ProductOfStacksBackward(torch::autograd::edge_list&& edges, const at::Tensor& left,
                          const at::Tensor& right)
      : Node(std::move(edges)),
        left_is_transposed_(is_transposed(left)),
        right_is_transposed_(is_transposed(right)) {
    if (next_edge(for_left).is_valid()) {
      right_ = SavedVariable(right, /*is_output=*/false);
    }
    if (next_edge(for_right).is_valid()) {
      left_ = SavedVariable(left, /*is_output=*/false);
    }
  }

  std::string name() const override {
    return "functorch_ext::ProductOfStacksBackward";
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    left_.reset_data();
    right_.reset_data();
  }

  variable_list apply(variable_list&& cotangents) override {
    const std::lock_guard lock(mutex_);
    variable_list gradients(2);
    const auto& cotangent = cotangents[0];
    if (!cotangent.defined()) {
      return gradients;
    }
    if (task_should_compute_output(for_left)) {
      const auto right = right_.unpack();
      gradients[for_left] = left_is_transposed_ ? product_of_stacks(right, cotangent.mT()).mT()
                                                : product_of_stacks(cotangent, right.mT());
    }
    if (task_should_compute_output(for_right)) {
      const auto left = left_.unpack();
      gradients[for_right] = right_is_transposed_ ? product_of_stacks(cotangent.mT(), left).mT()
                                                  : product_of_stacks(left.mT(), cotangent);
    }
    return gradients;
  }

 private:
  enum : size_t { for_left, for_right };

  const bool left_is_transposed_;
  const bool right_is_transposed_;
  SavedVariable left_;
  SavedVariable right_;
};

bool are_numbers(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  return is_given(bias) ? are_numbers_alike({&weight, &input, &*bias})
                        : are_numbers_alike({&weight, &input});
}

bool is_layer(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  return weight.dim() == 2 && input.dim() > 0 && input.sym_size(-1) == weight.sym_size(1) &&
         (!bias || !bias->defined() ||
          (bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0))) &&
         are_numbers(input, weight, bias);
}

// One vector: an operator of PyTorch's does that in one node, and has forward mode.
at::Tensor linear_of_vector(const at::Tensor& input, const at::Tensor& weight,
                            const OptionalTensor& bias) {
  return is_given(bias) ? at::addmv(*bias, weight, input) : at::mv(weight, input);
}

// What `compute` computes, unseen by autograd of this plane, with its node.
template <class Compute>
at::Tensor recorded(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                    Compute&& compute) {
  auto edges = torch::autograd::collect_next_edges(input, weight, bias);
  const auto node = make_node<LinearBackward>(std::move(edges), input, weight);
  const auto output = compute();
  torch::autograd::set_history(output, node);
  return output;
}

// A mode that the program enters inside the transform sees the operators that PyTorch makes a layer
// of. Those around it see what the rules call.
bool is_watched(const Level& level) {
  return c10::impl::TorchDispatchModeTLS::stack_len() > level.modes;
}

// Does autograd, in reverse mode alone, follow one of the tensors?
bool is_recorded(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  return any_differentiated(input, weight, bias) && !any_tangent(input, weight, bias);
}

bool any_wrapper(const at::Tensor& input, const at::Tensor& weight, const OptionalTensor& bias) {
  return is_wrapper(input) || is_wrapper(weight) || (is_given(bias) && is_wrapper(*bias));
}

// On plane 0, while a transform differentiates.
at::Tensor linear(c10::DispatchKeySet keys, const at::Tensor& input, const at::Tensor& weight,
                  const OptionalTensor& bias) {
  const auto redispatch = [&](c10::DispatchKeySet below) {
    return at::_ops::linear::redispatch(below, input, weight, bias);
  };
  const auto below = below_derivatives(keys);
  if (any_wrapper(input, weight, bias) || !is_layer(input, weight, bias) ||
      keys.has(c10::DispatchKey::Python)) {
    return redispatch(below);
  }
  if (input.dim() == 1) {
    return linear_of_vector(input, weight, bias);
  }
  if (!is_recorded(input, weight, bias)) {
    return redispatch(below);
  }
  return recorded(input, weight, bias.value_or(at::Tensor()), [&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return redispatch(below & c10::after_ADInplaceOrView_keyset);
  });
}

}  // namespace

std::optional<at::Tensor> linear_in_one_node(LinearRule rule, Level& level, const at::Tensor& input,
                                             const at::Tensor& weight, const OptionalTensor& bias) {
  if (!is_layer(input, weight, bias) || is_watched(level)) {
    return std::nullopt;
  }
  if (input.dim() == 1) {
    return linear_of_vector(input, weight, bias);
  }
  // What is differentiated on a plane below is a constant on this one.
  const auto lifted = [&](const at::Tensor& tensor) {
    return tensor.defined() && needs_lift(tensor, level) ? wrap(tensor, no_bdim, level) : tensor;
  };
  const auto x = lifted(input), w = lifted(weight), b = lifted(bias.value_or(at::Tensor()));
  if (!is_recorded(x, w, b)) {
    return std::nullopt;
  }
  return recorded(x, w, b, [&] {
    const PlaneBelow below(level);
    return rule(level, x, w, b.defined() ? OptionalTensor(b) : std::nullopt);
  });
}

at::Tensor linear_of_stacks(const at::Tensor& input, const at::Tensor& weight,
                            const at::Tensor& bias) {
  const auto compute = [](const at::Tensor& input, const at::Tensor& weight,
                          const at::Tensor& bias) {
    const bool is_plain = is_readable(input) && is_readable(weight) && is_readable(bias);
    return is_plain && are_large_layers(input, weight) && are_numbers(input, weight, bias)
               ? layers_in_turn(input, weight, bias)
               : at::baddbmm(bias.unsqueeze(1), input, weight.mT());
  };
  if (any_wrapper(input, weight, bias) || !is_recorded(input, weight, bias) ||
      !are_numbers(input, weight, bias)) {
    return compute(input, weight, bias);
  }
  return recorded(input, weight, bias, [&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return compute(input.detach(), weight.detach(), bias.detach());
  });
}

at::Tensor product_of_stacks(const at::Tensor& left, const at::Tensor& right) {
  if (any_wrapper(left, right, std::nullopt) || !is_recorded(left, right, std::nullopt) ||
      !are_numbers(left, right, std::nullopt) || left.dim() != 3 || right.dim() != 3) {
    return at::bmm(left, right);
  }
  const auto node = make_node<ProductOfStacksBackward>(
      torch::autograd::collect_next_edges(left, right), left, right);
  const auto product = [&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return at::bmm(left, right);
  }();
  torch::autograd::set_history(product, node);
  return product;
}

void register_linear_derivatives() {
  add_derivative_kernel<at::_ops::linear>(linear);
}

}  // namespace functorch_ext
