// Recurrent networks. Where samples share the weights and nothing is differentiated per sample, the
// samples join N of one call of PyTorch's layers. Otherwise the layers are computed step by step,
// of operators that batch and have all derivatives, which the fused layers don't.
#include "batching/recurrent.h"

#include "batching/operators.h"
#include "batching/rules.h"
#include "derivatives/linear.h"
#include "derivatives/recurrent.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

}  // namespace

RecurrentState recurrent_step(RecurrentKind kind, const at::Tensor& from_input,
                              const RecurrentState& state, const RecurrentWeights& weights) {
  const auto from_state = at::linear(state.hidden, weights.of_state, weights.bias_of_state);
  switch (kind) {
    case RecurrentKind::Tanh:
      return {at::tanh(from_input + from_state), {}};
    case RecurrentKind::Relu:
      return {at::relu(from_input + from_state), {}};
    case RecurrentKind::Gru: {
      const auto input_gates = gates_of(from_input, 3, -1);
      const auto state_gates = gates_of(from_state, 3, -1);
      const auto reset = at::sigmoid(input_gates[0] + state_gates[0]);
      const auto update = at::sigmoid(input_gates[1] + state_gates[1]);
      const auto proposed = at::tanh(input_gates[2] + reset * state_gates[2]);
      return {(state.hidden - proposed) * update + proposed, {}};
    }
    case RecurrentKind::Lstm:
      break;
  }
  const auto gates = gates_of(from_input + from_state, 4, -1);
  const auto cell = at::sigmoid(gates[1]) * state.cell + at::sigmoid(gates[0]) * at::tanh(gates[2]);
  const auto hidden = at::sigmoid(gates[3]) * at::tanh(cell);
  return {weights.projection ? at::linear(hidden, *weights.projection) : hidden, cell};
}

std::pair<at::Tensor, RecurrentState> recurrent_layer(RecurrentKind kind, const at::Tensor& input,
                                                      const RecurrentState& state,
                                                      const RecurrentWeights& weights,
                                                      bool reverse) {
  auto result = recurrent_layer_in_one_node(kind, input, state, weights, reverse);
  return result ? *std::move(result) : layer_by_steps(kind, input, state, weights, reverse);
}

std::pair<at::Tensor, RecurrentState> layer_by_steps(RecurrentKind kind, const at::Tensor& input,
                                                     RecurrentState state, RecurrentWeights weights,
                                                     bool reverse) {
  weights.of_state = weight_of_steps(weights.of_state);
  if (kind != RecurrentKind::Gru && weights.bias_of_input && weights.bias_of_state) {
    // Once for all steps; a GRU multiplies the state's part by a gate first.
    weights.bias_of_input = *weights.bias_of_input + *weights.bias_of_state;
    weights.bias_of_state.reset();
  }
  const auto from_input = at::linear(input, weights.of_input, weights.bias_of_input).unbind(0);
  std::vector<at::Tensor> outputs(from_input.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto step = reverse ? outputs.size() - 1 - i : i;
    state = recurrent_step(kind, from_input[step], state, weights);
    outputs[step] = state.hidden;
  }
  return {at::stack(outputs), state};
}

std::pair<at::Tensor, RecurrentState> step_by_step(const RecurrentNetwork& network,
                                                   const at::Tensor& input,
                                                   const RecurrentState& states,
                                                   at::TensorList params, bool batch_first) {
  auto [output, last] =
      through_layers(network, batch_first ? input.transpose(0, 1) : input, states, params,
                     [&](const at::Tensor& sequence, const RecurrentState& state,
                         const RecurrentWeights& weights, bool reverse) {
                       return recurrent_layer(network.kind, sequence, state, weights, reverse);
                     });
  return {batch_first ? output.transpose(0, 1) : output, last};
}

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// Can the samples join N of one call? Not where weights differ, or draws must be shared.
bool can_join(const RecurrentNetwork& network, at::TensorList params, const Level& level) {
  const bool draws = network.train && network.dropout > 0;
  bool shared = !draws && !has_no_samples(level);
  for (const auto& param : params) {
    shared = shared && !is_batched_at(param, level);
  }
  return shared;
}

// The arguments of such a call, and its results parted again.
class JoinedSequences {
 public:
  JoinedSequences(const at::Tensor& input, at::TensorList params, bool batch_first,
                  const Level& level)
      : level_(level), n_dim_(batch_first ? 0 : 1), n_(input.sym_size(n_dim_)) {
    input_ = merge_into(expanded_at_front(input, level), n_dim_);
    for (const auto& param : params) {
      params_.push_back(value_of(param, level));
    }
  }
  const at::Tensor& input() const {
    return input_;
  }
  at::TensorList params() const {
    return params_;
  }
  at::Tensor state(const at::Tensor& state) const {
    // cuDNN takes no other.
    return merge_into(expanded_at_front(state, level_), 1).contiguous();
  }
  at::Tensor output(const at::Tensor& output) const {
    return wrap(split_from(output, n_dim_, level_, n_), 0, level_);
  }
  at::Tensor last(const at::Tensor& state) const {
    return wrap(split_from(state, 1, level_, n_), 0, level_);
  }

 private:
  const Level& level_;
  const int64_t n_dim_;
  const c10::SymInt n_;
  at::Tensor input_;
  std::vector<at::Tensor> params_;
};

Three lstm_in_steps(const at::Tensor& input, at::TensorList states, at::TensorList params,
                    bool has_biases, int64_t layers, double dropout, bool train, bool bidirectional,
                    bool batch_first) {
  const RecurrentNetwork network{RecurrentKind::Lstm, has_biases, layers, dropout, train,
                                 bidirectional};
  auto [output, last] = step_by_step(network, input, lstm_states(states), params, batch_first);
  return {output, last.hidden, last.cell};
}

std::optional<Three> lstm_decomposition(Level&, const at::Tensor& input, at::TensorList states,
                                        at::TensorList params, bool has_biases, int64_t layers,
                                        double dropout, bool train, bool bidirectional,
                                        bool batch_first) {
  return lstm_in_steps(input, states, params, has_biases, layers, dropout, train, bidirectional,
                       batch_first);
}

Three lstm_rule(Level& level, const at::Tensor& input, at::TensorList states, at::TensorList params,
                bool has_biases, int64_t layers, double dropout, bool train, bool bidirectional,
                bool batch_first) {
  const RecurrentNetwork network{RecurrentKind::Lstm, has_biases, layers, dropout, train,
                                 bidirectional};
  const auto first = lstm_states(states);
  if (!can_join(network, params, level)) {
    return lstm_in_steps(input, states, params, has_biases, layers, dropout, train, bidirectional,
                         batch_first);
  }
  const JoinedSequences joined(input, params, batch_first, level);
  const auto [output, hidden, cell] =
      at::lstm(joined.input(), {joined.state(first.hidden), joined.state(first.cell)},
               joined.params(), has_biases, layers, dropout, train, bidirectional, batch_first);
  return {joined.output(output), joined.last(hidden), joined.last(cell)};
}

// Layers with one state.
template <class Op, RecurrentKind kind>
struct Simple {
  static Two compute(const at::Tensor& input, const at::Tensor& states, at::TensorList params,
                     bool has_biases, int64_t layers, double dropout, bool train,
                     bool bidirectional, bool batch_first) {
    const RecurrentNetwork network{kind, has_biases, layers, dropout, train, bidirectional};
    auto [output, last] = step_by_step(network, input, {states, {}}, params, batch_first);
    return {output, last.hidden};
  }
  static std::optional<Two> decomposition(Level&, const at::Tensor& input, const at::Tensor& states,
                                          at::TensorList params, bool has_biases, int64_t layers,
                                          double dropout, bool train, bool bidirectional,
                                          bool batch_first) {
    return compute(input, states, params, has_biases, layers, dropout, train, bidirectional,
                   batch_first);
  }
  static Two rule(Level& level, const at::Tensor& input, const at::Tensor& states,
                  at::TensorList params, bool has_biases, int64_t layers, double dropout,
                  bool train, bool bidirectional, bool batch_first) {
    const RecurrentNetwork network{kind, has_biases, layers, dropout, train, bidirectional};
    if (!can_join(network, params, level)) {
      return compute(input, states, params, has_biases, layers, dropout, train, bidirectional,
                     batch_first);
    }
    const JoinedSequences joined(input, params, batch_first, level);
    const auto [output, hidden] =
        Op::call(joined.input(), joined.state(states), joined.params(), has_biases, layers, dropout,
                 train, bidirectional, batch_first);
    return {joined.output(output), joined.last(hidden)};
  }
};

// One layer in one direction, as CPUs compute it in float32: (output, hidden, cell, workspace).
using Layer = at::_ops::mkldnn_rnn_layer;
using Four = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Four fused_layer(const at::Tensor& input, const at::Tensor& of_input, const at::Tensor& of_state,
                 const at::Tensor& bias_of_input, const at::Tensor& bias_of_state,
                 const at::Tensor& hidden, const at::Tensor& cell, bool reverse, bool has_biases) {
  RecurrentWeights weights{of_input, of_state, {}, {}, {}};
  if (has_biases) {
    weights.bias_of_input = bias_of_input;
    weights.bias_of_state = bias_of_state;
  }
  const RecurrentState state{hidden.reshape_symint(hidden.sym_sizes().slice(hidden.dim() - 2, 2)),
                             cell.reshape_symint(cell.sym_sizes().slice(cell.dim() - 2, 2))};
  auto [output, last] = recurrent_layer(RecurrentKind::Lstm, input, state, weights, reverse);
  return {output, last.hidden.reshape_symint(hidden.sym_sizes()),
          last.cell.reshape_symint(cell.sym_sizes()),
          at::empty({0}, output.options().dtype(at::kByte))};
}

Four fused_layer_rule(Level&, const at::Tensor& input, const at::Tensor& weight0,
                      const at::Tensor& weight1, const at::Tensor& weight2,
                      const at::Tensor& weight3, const at::Tensor& hidden, const at::Tensor& cell,
                      bool reverse, at::IntArrayRef batch_sizes, int64_t mode, int64_t hidden_size,
                      int64_t num_layers, bool has_biases, bool bidirectional, bool batch_first,
                      bool train) {
  return fused_layer(input, weight0, weight1, weight2, weight3, hidden, cell, reverse, has_biases);
}

std::optional<Four> fused_layer_decomposition(Level& level, const at::Tensor& input,
                                              const at::Tensor& weight0, const at::Tensor& weight1,
                                              const at::Tensor& weight2, const at::Tensor& weight3,
                                              const at::Tensor& hidden, const at::Tensor& cell,
                                              bool reverse, at::IntArrayRef batch_sizes,
                                              int64_t mode, int64_t hidden_size, int64_t num_layers,
                                              bool has_biases, bool bidirectional, bool batch_first,
                                              bool train) {
  return fused_layer(input, weight0, weight1, weight2, weight3, hidden, cell, reverse, has_biases);
}

Four fused_layer_with_tangents(c10::DispatchKeySet keys, const at::Tensor& input,
                               const at::Tensor& weight0, const at::Tensor& weight1,
                               const at::Tensor& weight2, const at::Tensor& weight3,
                               const at::Tensor& hidden, const at::Tensor& cell, bool reverse,
                               at::IntArrayRef batch_sizes, int64_t mode, int64_t hidden_size,
                               int64_t num_layers, bool has_biases, bool bidirectional,
                               bool batch_first, bool train) {
  if (any_tangent(input, weight0, weight1, weight2, weight3, hidden, cell)) {
    return fused_layer(input, weight0, weight1, weight2, weight3, hidden, cell, reverse,
                       has_biases);
  }
  return Layer::redispatch(below_derivatives(keys), input, weight0, weight1, weight2, weight3,
                           hidden, cell, reverse, batch_sizes, mode, hidden_size, num_layers,
                           has_biases, bidirectional, batch_first, train);
}

}  // namespace

void register_recurrent_rules() {
  add<at::_ops::lstm_input>(lstm_rule, lstm_decomposition);
  using Gru = Simple<at::_ops::gru_input, RecurrentKind::Gru>;
  using Tanh = Simple<at::_ops::rnn_tanh_input, RecurrentKind::Tanh>;
  using Relu = Simple<at::_ops::rnn_relu_input, RecurrentKind::Relu>;
  add<at::_ops::gru_input>(Gru::rule, Gru::decomposition);
  add<at::_ops::rnn_tanh_input>(Tanh::rule, Tanh::decomposition);
  add<at::_ops::rnn_relu_input>(Relu::rule, Relu::decomposition);

  add<Layer>(fused_layer_rule, fused_layer_decomposition);
  add_derivative_kernel<Layer>(fused_layer_with_tangents);
}

}  // namespace functorch_ext
