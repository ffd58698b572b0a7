// Recurrent layers as one node of autograd's graph. Step by step they are a dozen nodes a step.
// Here the backward pass takes the steps on what the forward pass has kept, and the gradients of
// the weights of all samples are one product each, of all steps.
#include "derivatives/recurrent.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <mutex>

#include "autodiff/forward_by_reverse.h"
#include "autodiff/plane.h"
#include "batching/recurrent_members.h"
#include "batching/recurrent_rows.h"
#include "engine/derivatives.h"
#include "engine/routing.h"
#include "releases/nodes.h"

namespace functorch_ext {

namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// The arguments, some of which may be undefined.
enum Argument : size_t {
  for_input,
  for_hidden,
  for_cell,
  of_input,
  of_state,
  bias_of_input,
  bias_of_state,
  argument_count
};
using Arguments = std::vector<at::Tensor>;

Arguments arguments_of(const at::Tensor& input, const RecurrentState& state,
                       const RecurrentWeights& weights) {
  return {input,
          state.hidden,
          state.cell,
          weights.of_input,
          weights.of_state,
          weights.bias_of_input.value_or(at::Tensor()),
          weights.bias_of_state.value_or(at::Tensor())};
}

at::Tensor reversed(const at::Tensor& sequence, bool reverse) {
  return reverse && sequence.defined() ? sequence.flip(0) : sequence;
}

// Is it a layer that PyTorch would compute? It says what is wrong with others.
bool is_layer(RecurrentKind kind, const Arguments& arguments) {
  const auto& input = arguments[for_input];
  const auto& hidden = arguments[for_hidden];
  const auto has_shape = [](const at::Tensor& tensor, at::IntArrayRef sizes) {
    return !tensor.defined() || tensor.sizes() == sizes;
  };
  if (input.dim() != 3 || hidden.dim() != 2 ||
      arguments[bias_of_input].defined() != arguments[bias_of_state].defined()) {
    return false;
  }
  const auto n = input.size(1), size = hidden.size(1);
  const auto gates = size * gates_in(kind);
  return has_shape(hidden, {n, size}) && has_shape(arguments[for_cell], {n, size}) &&
         has_shape(arguments[of_input], {gates, input.size(2)}) &&
         has_shape(arguments[of_state], {gates, size}) &&
         has_shape(arguments[bias_of_input], {gates}) &&
         has_shape(arguments[bias_of_state], {gates});
}

// Without samples, sequences, steps or features there are no rows to divide among samples.
bool has_no_numbers(const Arguments& arguments, const Level& level) {
  return level.batch_size.expect_int() == 0 || arguments[for_input].numel() == 0 ||
         arguments[for_hidden].numel() == 0;
}

// Numbers of one type, of which none is differentiated on a plane below: parameters may ask for
// that where nothing is recorded.
bool are_plain(const std::vector<at::Tensor>& tensors, const Level& level, at::ScalarType type) {
  const PlaneBelow below(level);
  const bool recorded = c10::GradMode::is_enabled();
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
    if (!tensor.defined()) {
      return true;
    }
    const auto& value = value_of(tensor, level);
    return tensor.scalar_type() == type &&
           is_readable(value.requires_grad() && !recorded && !is_wrapper(value) ? value.detach()
                                                                                : value);
  });
}

// The layer as plain tensors, the samples' rows together.
recurrent::Layer layer_of_rows(RecurrentKind kind, bool reverse, const Arguments& arguments,
                               const Level& level) {
  const auto samples = level.batch_size.expect_int();
  const auto states = [&](const at::Tensor& states) {
    return states.defined() ? expanded_at_front(states, level).flatten(0, 1) : at::Tensor();
  };
  const auto front = [&](const at::Tensor& tensor) {
    return tensor.defined() ? at_front(tensor, level) : at::Tensor();
  };
  const auto input = expanded_at_front(arguments[for_input], level).transpose(0, 1).flatten(1, 2);
  return {kind,
          samples,
          reversed(input, reverse).contiguous(),
          states(arguments[for_hidden]),
          states(arguments[for_cell]),
          front(arguments[of_input]),
          front(arguments[of_state]),
          front(arguments[bias_of_input]),
          front(arguments[bias_of_state])};
}

// Have the samples weights of their own, with which one layer after the other is faster?
bool are_members(RecurrentKind kind, const Arguments& arguments, const Level& level) {
  const auto& input = arguments[for_input];
  return kind == RecurrentKind::Lstm && is_batched_at(arguments[of_input], level) &&
         is_batched_at(arguments[of_state], level) &&
         recurrent::is_better_fused(
             input.scalar_type(), input.size(0) * input.size(1) *
                                      (arguments[of_input].numel() + arguments[of_state].numel()));
}

recurrent::MemberLayers layers_of_members(bool reverse, const Arguments& arguments,
                                          const Level& level) {
  const auto stack = [&](Argument argument) {
    const auto& tensor = arguments[argument];
    return tensor.defined() ? expanded_at_front(tensor, level) : at::Tensor();
  };
  return {stack(for_input), stack(for_hidden),    stack(for_cell),      stack(of_input),
          stack(of_state),  stack(bias_of_input), stack(bias_of_state), reverse};
}

// (..., rows, size) as the values of samples, and back.
at::Tensor as_samples(const at::Tensor& rows, const Level& level) {
  const auto dim = rows.dim() - 2;
  const auto parted = rows.unflatten(dim, {level.batch_size.expect_int(), -1});
  return wrap(parted.movedim(dim, 0), 0, level);
}
at::Tensor as_rows(const at::Tensor& tensor, const Level& level) {
  if (!tensor.defined()) {
    return tensor;
  }
  const auto dim = tensor.dim() - 2;
  return expanded_at_front(tensor, level).movedim(0, dim).flatten(dim, dim + 1);
}

std::vector<at::Tensor> outputs_by_steps(RecurrentKind kind, bool reverse,
                                         const Arguments& arguments) {
  RecurrentWeights weights{arguments[of_input], arguments[of_state], {}, {}, {}};
  if (arguments[bias_of_input].defined()) {
    weights.bias_of_input = arguments[bias_of_input];
    weights.bias_of_state = arguments[bias_of_state];
  }
  const auto [output, last] = layer_by_steps(
      kind, arguments[for_input], {arguments[for_hidden], arguments[for_cell]}, weights, reverse);
  return last.cell.defined() ? std::vector<at::Tensor>{output, last.hidden, last.cell}
                             : std::vector<at::Tensor>{output, last.hidden};
}

class RecurrentBackward final : public torch::autograd::Node {
 public:
  RecurrentBackward(torch::autograd::edge_list&& edges, RecurrentKind kind, bool reverse,
                    const Arguments& arguments, LevelPtr level)
      : Node(std::move(edges)), kind_(kind), reverse_(reverse), level_(std::move(level)) {
    for (const auto& argument : arguments) {
      arguments_.emplace_back(argument, /*is_output=*/false);
    }
  }

  void keep(recurrent::Trace trace) {
    trace_ = std::move(trace);
  }
  void keep(std::vector<recurrent::MemberTrace> traces) {
    members_ = std::move(traces);
  }

  std::string name() const override {
    return "functorch_ext::RecurrentBackward";
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    for (auto& argument : arguments_) {
      argument.reset_data();
    }
    trace_ = {};
    members_.clear();
  }

  variable_list apply(variable_list&& cotangents) override {
    const std::lock_guard lock(mutex_);
    Arguments arguments;
    for (const auto& argument : arguments_) {
      arguments.push_back(argument.unpack());
    }
    if (c10::GradMode::is_enabled() ||
        !are_plain(cotangents, *level_, arguments[for_input].scalar_type())) {
      return by_steps(arguments, std::move(cotangents));
    }
    const PlaneBelow below(*level_);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
    return members_.empty() ? from_trace(arguments, cotangents)
                            : from_members(arguments, cotangents);
  }

 private:
  // With all derivatives.
  variable_list by_steps(const Arguments& arguments, variable_list&& cotangents) const {
    const auto function = [kind = kind_, reverse = reverse_,
                           defined = defined(arguments)](const std::vector<at::Tensor>& inputs) {
      Arguments arguments(argument_count);
      for (size_t i = 0; i < inputs.size(); ++i) {
        arguments[defined[i]] = inputs[i];
      }
      return outputs_by_steps(kind, reverse, arguments);
    };
    std::vector<at::Tensor> inputs;
    for (const auto i : defined(arguments)) {
      inputs.push_back(lift_to(arguments[i], level_));
    }
    const auto found =
        reevaluated_gradients(function, inputs, std::move(cotangents), level_, "a recurrent layer");
    variable_list gradients(argument_count);
    for (size_t i = 0; i < found.size(); ++i) {
      gradients[defined(arguments)[i]] = found[i];
    }
    return gradients;
  }

  static std::vector<size_t> defined(const Arguments& arguments) {
    std::vector<size_t> positions;
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].defined()) {
        positions.push_back(i);
      }
    }
    return positions;
  }

  variable_list from_trace(const Arguments& arguments, const variable_list& cotangents) const {
    const auto layer = layer_of_rows(kind_, reverse_, arguments, *level_);
    const auto samples = layer.samples;
    const auto rows = [&](size_t i) {
      return i < cotangents.size() ? as_rows(cotangents[i], *level_) : at::Tensor();
    };
    const auto found =
        recurrent::pull_back(layer, trace_, {reversed(rows(0), reverse_), rows(1), rows(2)});
    variable_list gradients(argument_count);
    const auto give = [&](Argument argument, auto&& gradient) {
      if (task_should_compute_output(argument)) {
        gradients[argument] = gradient();
      }
    };
    const auto of_rows = [&](const at::Tensor& rows) { return as_samples(rows, *level_); };
    const auto of_samples = [&](const at::Tensor& values) { return wrap(values, 0, *level_); };
    const auto of_weight = [&](const at::Tensor& gates, const at::Tensor& factor) {
      return of_samples(
          recurrent::by_sample(gates, samples).mT().bmm(recurrent::by_sample(factor, samples)));
    };
    const auto of_bias = [&](const at::Tensor& gates) {
      return of_samples(recurrent::by_sample(gates, samples).sum(1));
    };
    give(for_input, [&] {
      const auto of_input = recurrent::times(found.gates_of_input, layer.of_input, samples);
      return of_rows(reversed(of_input, reverse_));
    });
    give(for_hidden, [&] { return of_rows(found.hidden); });
    give(for_cell, [&] { return of_rows(found.cell); });
    give(of_input, [&] { return of_weight(found.gates_of_input, layer.input); });
    give(of_state, [&] {
      return of_weight(found.gates_of_state,
                       trace_.hiddens.narrow(0, 0, trace_.hiddens.size(0) - 1));
    });
    give(bias_of_input, [&] { return of_bias(found.gates_of_input); });
    give(bias_of_state, [&] { return of_bias(found.gates_of_state); });
    return gradients;
  }

  variable_list from_members(const Arguments& arguments, const variable_list& cotangents) const {
    const auto stack = [&](size_t i) {
      return i < cotangents.size() && cotangents[i].defined()
                 ? expanded_at_front(cotangents[i], *level_)
                 : at::Tensor();
    };
    const auto found = recurrent::pull_back(layers_of_members(reverse_, arguments, *level_),
                                            members_, {stack(0), stack(1), stack(2)});
    variable_list gradients(argument_count);
    const auto give = [&](Argument argument, const at::Tensor& gradient) {
      if (task_should_compute_output(argument)) {
        gradients[argument] = wrap(gradient, 0, *level_);
      }
    };
    give(for_input, found.input);
    give(for_hidden, found.hidden);
    give(for_cell, found.cell);
    give(of_input, found.of_input);
    give(of_state, found.of_state);
    give(bias_of_input, found.bias_of_input);
    give(bias_of_state, found.bias_of_state);
    return gradients;
  }

  const RecurrentKind kind_;
  const bool reverse_;
  const LevelPtr level_;
  std::vector<SavedVariable> arguments_;
  recurrent::Trace trace_;
  std::vector<recurrent::MemberTrace> members_;  // in place of the trace
};

}  // namespace

std::optional<std::pair<at::Tensor, RecurrentState>> recurrent_layer_in_one_node(
    RecurrentKind kind, const at::Tensor& input, const RecurrentState& state,
    const RecurrentWeights& weights, bool reverse) {
  const auto arguments = arguments_of(input, state, weights);
  const auto level = plane_of(arguments);
  if (!level || !level->has_samples || weights.projection ||
      any_tangent(at::TensorList(arguments))) {
    return std::nullopt;
  }
  const auto type = input.scalar_type();
  const bool is_batched =
      std::any_of(arguments.begin(), arguments.end(),
                  [&](const at::Tensor& argument) { return is_batched_at(argument, *level); });
  // Autocast casts the operators of steps, one by one.
  if (!is_batched || (type != at::kFloat && type != at::kDouble) ||
      at::autocast::is_autocast_enabled(at::kCPU) || !are_plain(arguments, *level, type) ||
      !is_layer(kind, arguments) || has_no_numbers(arguments, *level)) {
    return std::nullopt;
  }
  NodePtr<RecurrentBackward> node;
  if (any_differentiated(at::TensorList(arguments))) {
    node = make_node<RecurrentBackward>(torch::autograd::collect_next_edges(arguments), kind,
                                        reverse, arguments, level);
  }
  at::Tensor output, hidden, cell;
  {
    const PlaneBelow below(*level);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    if (are_members(kind, arguments, *level)) {
      std::vector<recurrent::MemberTrace> traces;
      const auto found =
          recurrent::run(layers_of_members(reverse, arguments, *level), node ? &traces : nullptr);
      output = wrap(found.output, 0, *level);
      hidden = wrap(found.hidden, 0, *level);
      cell = wrap(found.cell, 0, *level);
      if (node) {
        node->keep(std::move(traces));
      }
    } else {
      auto trace = recurrent::run(layer_of_rows(kind, reverse, arguments, *level));
      // What the node keeps is its own: the program may write to a result.
      const auto result = [&](const at::Tensor& rows) {
        return as_samples(node ? rows.clone() : rows, *level);
      };
      output = result(reversed(trace.hiddens.narrow(0, 1, trace.hiddens.size(0) - 1), reverse));
      hidden = result(trace.hiddens[-1]);
      if (trace.cells.defined()) {
        cell = result(trace.cells[-1]);
      }
      if (node) {
        node->keep(std::move(trace));
      }
    }
  }
  if (node) {
    torch::autograd::set_history(output, node);
    torch::autograd::set_history(hidden, node);
    if (cell.defined()) {
      torch::autograd::set_history(cell, node);
    }
  }
  return std::pair(output, RecurrentState{hidden, cell});
}

}  // namespace functorch_ext
