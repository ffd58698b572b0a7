#pragma once

#include <utility>

#include "batching/channels.h"
#include "batching/families.h"
#include "batching/operators.h"

// Recurrent networks, made of operators that batch and differentiate.
namespace functorch_ext {

enum class RecurrentKind : uint8_t { Tanh, Relu, Gru, Lstm };

// What a network carries from one step to the next; only an LSTM has a cell.
struct RecurrentState {
  at::Tensor hidden;
  at::Tensor cell;
};

struct RecurrentWeights {
  at::Tensor of_input;
  at::Tensor of_state;
  OptionalTensor bias_of_input;
  OptionalTensor bias_of_state;
  OptionalTensor projection;  // of an LSTM's hidden state
};

// One step; `from_input` is the input times its weights, (N, gates).
RecurrentState recurrent_step(RecurrentKind kind, const at::Tensor& from_input,
                              const RecurrentState& state, const RecurrentWeights& weights);

constexpr int64_t gates_in(RecurrentKind kind) {
  return kind == RecurrentKind::Lstm ? 4 : kind == RecurrentKind::Gru ? 3 : 1;
}

// A sequence (time, N, features) through one layer, in one direction: all outputs, last state.
std::pair<at::Tensor, RecurrentState> recurrent_layer(RecurrentKind kind, const at::Tensor& input,
                                                      const RecurrentState& state,
                                                      const RecurrentWeights& weights,
                                                      bool reverse);
// The same of operators that batch and have all derivatives.
std::pair<at::Tensor, RecurrentState> layer_by_steps(RecurrentKind kind, const at::Tensor& input,
                                                     RecurrentState state, RecurrentWeights weights,
                                                     bool reverse);

// Layers on layers, each in one direction or in both.
struct RecurrentNetwork {
  RecurrentKind kind;
  bool has_biases;
  int64_t layers;
  double dropout;
  bool train;
  bool bidirectional;

  int64_t directions() const {
    return bidirectional ? 2 : 1;
  }
  // The weights of one layer and direction, as they lie in the list of all.
  RecurrentWeights weights(at::TensorList params, int64_t index) const {
    const auto count = static_cast<int64_t>(params.size());
    TORCH_CHECK(layers > 0, "expected at least one layer, but got num_layers=", layers);
    const auto each = count / (layers * directions());
    TORCH_CHECK(each >= (has_biases ? 4 : 2) && count == each * layers * directions(),
                "expected the weights of ", layers * directions(), " layers and directions, ",
                has_biases ? "at least 4" : "2 or 3", " of each, but got ", count, " in all");
    const auto own = params.slice(index * each, each);
    RecurrentWeights result{own[0], own[1], {}, {}, {}};
    if (has_biases) {
      result.bias_of_input = own[2];
      result.bias_of_state = own[3];
    }
    if (each % 2 == 1) {
      result.projection = own.back();
    }
    return result;
  }
};

// What is for several gates, one after the other along `dim`.
inline std::vector<at::Tensor> gates_of(const at::Tensor& all, int64_t count, int64_t dim) {
  TORCH_CHECK(all.sym_size(dim) % count == 0, "expected ", count,
              " gates of the same size, but got ", all.sym_size(dim), " numbers for all");
  return all.chunk(count, dim);
}

// The first hidden and cell state of an LSTM.
inline RecurrentState lstm_states(at::TensorList states) {
  TORCH_CHECK(states.size() == 2, "lstm: expected two states, hidden and cell, but got ",
              states.size());
  return {states[0], states[1]};
}

// A sequence through all layers, by `layer(input, state, weights, reverse)`: outputs, last states.
template <class Layer>
std::pair<at::Tensor, RecurrentState> through_layers(const RecurrentNetwork& network,
                                                     at::Tensor input, const RecurrentState& states,
                                                     at::TensorList params, Layer&& layer) {
  std::vector<at::Tensor> hiddens;
  std::vector<at::Tensor> cells;
  for (int64_t i = 0; i < network.layers; ++i) {
    if (i > 0 && network.train && network.dropout > 0) {
      input = at::dropout(input, network.dropout, true);
    }
    std::vector<at::Tensor> outputs;
    for (int64_t direction = 0; direction < network.directions(); ++direction) {
      const auto index = i * network.directions() + direction;
      const RecurrentState first{states.hidden.select(0, index), states.cell.defined()
                                                                     ? states.cell.select(0, index)
                                                                     : at::Tensor()};
      auto [output, last] =
          layer(input, first, network.weights(params, index), /*reverse=*/direction == 1);
      outputs.push_back(output);
      hiddens.push_back(last.hidden);
      cells.push_back(last.cell);
    }
    input = outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
  }
  return {input, {at::stack(hiddens), cells[0].defined() ? at::stack(cells) : at::Tensor()}};
}

// The same of operators that batch and have all derivatives: outputs, last states.
std::pair<at::Tensor, RecurrentState> step_by_step(const RecurrentNetwork& network,
                                                   const at::Tensor& input,
                                                   const RecurrentState& states,
                                                   at::TensorList params, bool batch_first);

}  // namespace functorch_ext
