// One step of a recurrent network: the cells of torch.nn, and the fused kernels that GPUs have for
// what comes after a step's products of matrices.
#include "batching/operators.h"
#include "batching/recurrent.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Five = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

RecurrentState cell(RecurrentKind kind, const at::Tensor& input, const RecurrentState& state,
                    const at::Tensor& of_input, const at::Tensor& of_state,
                    const OptionalTensor& bias_of_input, const OptionalTensor& bias_of_state) {
  return recurrent_step(kind, at::linear(input, of_input, bias_of_input), state,
                        {of_input, of_state, bias_of_input, bias_of_state, {}});
}

std::optional<Two> lstm_cell(Level&, const at::Tensor& input, at::TensorList states,
                             const at::Tensor& of_input, const at::Tensor& of_state,
                             const OptionalTensor& bias_of_input,
                             const OptionalTensor& bias_of_state) {
  const auto next = cell(RecurrentKind::Lstm, input, lstm_states(states), of_input, of_state,
                         bias_of_input, bias_of_state);
  return Two(next.hidden, next.cell);
}

template <RecurrentKind kind>
std::optional<at::Tensor> simple_cell(Level&, const at::Tensor& input, const at::Tensor& hidden,
                                      const at::Tensor& of_input, const at::Tensor& of_state,
                                      const OptionalTensor& bias_of_input,
                                      const OptionalTensor& bias_of_state) {
  return cell(kind, input, {hidden, {}}, of_input, of_state, bias_of_input, bias_of_state).hidden;
}

at::Tensor with_bias(const at::Tensor& gates, const OptionalTensor& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}

// (hidden, cell, workspace); the workspace holds the activated gates.
Three fused_lstm_cell_rule(Level&, const at::Tensor& from_input, const at::Tensor& from_state,
                           const at::Tensor& cell, const OptionalTensor& bias_of_input,
                           const OptionalTensor& bias_of_state) {
  const auto gates =
      gates_of(with_bias(with_bias(from_input + from_state, bias_of_input), bias_of_state), 4, 1);
  const auto in = at::sigmoid(gates[0]);
  const auto forget = at::sigmoid(gates[1]);
  const auto proposed = at::tanh(gates[2]);
  const auto out = at::sigmoid(gates[3]);
  const auto next = forget * cell + in * proposed;
  return {out * at::tanh(next), next, at::cat({in, forget, proposed, out}, 1)};
}

// (gradient of the gates, of the cell, of the bias)
Three fused_lstm_cell_backward_rule(Level&, const OptionalTensor& grad_hidden,
                                    const OptionalTensor& grad_cell, const at::Tensor& cell,
                                    const at::Tensor& next, const at::Tensor& workspace,
                                    bool has_bias) {
  const bool of_hidden = grad_hidden && grad_hidden->defined();
  const bool of_cell = grad_cell && grad_cell->defined();
  if (!of_hidden && !of_cell) {
    return {};
  }
  const auto gates = gates_of(workspace, 4, 1);
  const auto& in = gates[0];
  const auto& forget = gates[1];
  const auto& proposed = gates[2];
  const auto& out = gates[3];
  const auto squashed = at::tanh(next);
  const auto hidden = of_hidden ? *grad_hidden : at::zeros_like(next);
  auto total = hidden * out * (1 - squashed * squashed);
  total = of_cell ? total + *grad_cell : total;
  const auto through_sigmoid = [](const at::Tensor& gate) { return gate * (1 - gate); };
  const auto grad_gates =
      at::cat({total * proposed * through_sigmoid(in), total * cell * through_sigmoid(forget),
               total * in * (1 - proposed * proposed), hidden * squashed * through_sigmoid(out)},
              1);
  return {grad_gates, total * forget, has_bias ? grad_gates.sum(0) : at::Tensor()};
}

// (hidden, workspace); the workspace holds what the derivative needs: the activated gates, the
// state, and the state's part of the proposal.
Two fused_gru_cell_rule(Level&, const at::Tensor& from_input, const at::Tensor& from_state,
                        const at::Tensor& hidden, const OptionalTensor& bias_of_input,
                        const OptionalTensor& bias_of_state) {
  const auto input_gates = gates_of(with_bias(from_input, bias_of_input), 3, 1);
  const auto state_gates = gates_of(with_bias(from_state, bias_of_state), 3, 1);
  const auto reset = at::sigmoid(input_gates[0] + state_gates[0]);
  const auto update = at::sigmoid(input_gates[1] + state_gates[1]);
  const auto proposed = at::tanh(input_gates[2] + reset * state_gates[2]);
  return {(hidden - proposed) * update + proposed,
          at::cat({reset, update, proposed, hidden, state_gates[2]}, 1)};
}

// (gradients of the input's gates, of the state's, of the state, of both biases)
Five fused_gru_cell_backward_rule(Level&, const at::Tensor& grad, const at::Tensor& workspace,
                                  bool has_bias) {
  const auto saved = gates_of(workspace, 5, 1);
  const auto& reset = saved[0];
  const auto& update = saved[1];
  const auto& proposed = saved[2];
  const auto grad_proposed = grad * (1 - update) * (1 - proposed * proposed);
  const auto grad_update = grad * (saved[3] - proposed) * update * (1 - update);
  const auto grad_reset = grad_proposed * saved[4] * reset * (1 - reset);
  const auto of_input = at::cat({grad_reset, grad_update, grad_proposed}, 1);
  const auto of_state = at::cat({grad_reset, grad_update, grad_proposed * reset}, 1);
  const auto sum = [&](const at::Tensor& gradient) {
    return has_bias ? gradient.sum(0) : at::Tensor();
  };
  return {of_input, of_state, grad * update, sum(of_input), sum(of_state)};
}

}  // namespace

void register_recurrent_cells_rules() {
  add_decomposition<at::_ops::lstm_cell>(lstm_cell);
  add_decomposition<at::_ops::gru_cell>(simple_cell<RecurrentKind::Gru>);
  add_decomposition<at::_ops::rnn_tanh_cell>(simple_cell<RecurrentKind::Tanh>);
  add_decomposition<at::_ops::rnn_relu_cell>(simple_cell<RecurrentKind::Relu>);

  add<at::_ops::_thnn_fused_lstm_cell>(fused_lstm_cell_rule);
  add<at::_ops::_thnn_fused_lstm_cell_backward_impl>(fused_lstm_cell_backward_rule);
  add<at::_ops::_thnn_fused_gru_cell>(fused_gru_cell_rule);
  add<at::_ops::_thnn_fused_gru_cell_backward>(fused_gru_cell_backward_rule);
}

}  // namespace functorch_ext
