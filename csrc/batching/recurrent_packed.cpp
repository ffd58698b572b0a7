// Packed sequences: the steps of sequences of several lengths one after the other, (steps in all,
// features), with the number of sequences that each step has. The lengths are the same for all
// samples.
#include "batching/recurrent.h"
#include "batching/rules.h"
#include "batching/values.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using Two = std::tuple<at::Tensor, at::Tensor>;
using Three = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// How many sequences each step has, longest sequences first.
std::optional<std::vector<int64_t>> counts_of(const at::Tensor& batch_sizes) {
  const auto value = agreed_value(batch_sizes);
  if (!value) {
    return std::nullopt;
  }
  const auto sizes = value->to(at::kCPU, at::kLong).contiguous();
  TORCH_CHECK(sizes.numel() > 0, "a packed sequence needs at least one step, but batch_sizes is ",
              "empty");
  const auto* first = sizes.const_data_ptr<int64_t>();
  return std::vector<int64_t>(first, first + sizes.numel());
}

at::Tensor rows(const at::Tensor& tensor, int64_t first, int64_t count) {
  return tensor.defined() ? tensor.narrow(0, first, count) : tensor;
}

at::Tensor concatenated(const std::vector<at::Tensor>& parts) {
  return parts[0].defined() ? at::cat(parts) : at::Tensor();
}

// Sequences end, or (in reverse) begin, as steps have other counts than the one before.
std::pair<at::Tensor, RecurrentState> packed_layer(RecurrentKind kind,
                                                   const std::vector<int64_t>& counts,
                                                   const at::Tensor& data,
                                                   const RecurrentState& first,
                                                   const RecurrentWeights& weights, bool reverse) {
  const auto steps =
      at::linear(data, weights.of_input, weights.bias_of_input).split_with_sizes(counts);
  std::vector<at::Tensor> outputs(counts.size());
  std::vector<at::Tensor> ended_hidden;
  std::vector<at::Tensor> ended_cell;
  auto running = reverse ? counts.back() : counts.front();
  RecurrentState state{rows(first.hidden, 0, running), rows(first.cell, 0, running)};
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto step = reverse ? counts.size() - 1 - i : i;
    const auto count = counts[step];
    if (count < running) {
      ended_hidden.push_back(rows(state.hidden, count, running - count));
      ended_cell.push_back(rows(state.cell, count, running - count));
      state = {rows(state.hidden, 0, count), rows(state.cell, 0, count)};
    } else if (count > running) {
      state = {concatenated({state.hidden, rows(first.hidden, running, count - running)}),
               concatenated({state.cell, rows(first.cell, running, count - running)})};
    }
    running = count;
    state = recurrent_step(kind, steps[step], state, weights);
    outputs[step] = state.hidden;
  }
  ended_hidden.push_back(state.hidden);
  ended_cell.push_back(state.cell);
  std::reverse(ended_hidden.begin(), ended_hidden.end());
  std::reverse(ended_cell.begin(), ended_cell.end());
  return {at::cat(outputs), {concatenated(ended_hidden), concatenated(ended_cell)}};
}

std::pair<at::Tensor, RecurrentState> packed_network(const RecurrentNetwork& network,
                                                     const std::vector<int64_t>& counts,
                                                     const at::Tensor& data,
                                                     const RecurrentState& states,
                                                     at::TensorList params) {
  return through_layers(network, data, states, params,
                        [&](const at::Tensor& input, const RecurrentState& state,
                            const RecurrentWeights& weights, bool reverse) {
                          return packed_layer(network.kind, counts, input, state, weights, reverse);
                        });
}

std::optional<Three> lstm(Level&, const at::Tensor& data, const at::Tensor& batch_sizes,
                          at::TensorList states, at::TensorList params, bool has_biases,
                          int64_t layers, double dropout, bool train, bool bidirectional) {
  const auto counts = counts_of(batch_sizes);
  if (!counts) {
    return std::nullopt;
  }
  const auto [output, last] =
      packed_network({RecurrentKind::Lstm, has_biases, layers, dropout, train, bidirectional},
                     *counts, data, lstm_states(states), params);
  return Three(output, last.hidden, last.cell);
}

template <RecurrentKind kind>
std::optional<Two> simple(Level&, const at::Tensor& data, const at::Tensor& batch_sizes,
                          const at::Tensor& states, at::TensorList params, bool has_biases,
                          int64_t layers, double dropout, bool train, bool bidirectional) {
  const auto counts = counts_of(batch_sizes);
  if (!counts) {
    return std::nullopt;
  }
  const auto [output, last] =
      packed_network({kind, has_biases, layers, dropout, train, bidirectional}, *counts, data,
                     {states, {}}, params);
  return Two(output, last.hidden);
}

// Packing moves rows, and PyTorch tells which: it packs their numbers.
Two pack_rows(const at::Tensor& input, const at::Tensor& lengths, bool batch_first) {
  const auto all = input.size(0) * input.size(1);
  const auto numbers = at::arange(all, at::kLong).view({input.size(0), input.size(1), 1});
  const auto [positions, batch_sizes] = at::_pack_padded_sequence(numbers, lengths, batch_first);
  const auto moved = input.flatten(0, 1).index_select(0, positions.flatten().to(input.device()));
  return {moved, batch_sizes};
}

std::optional<Two> pack(Level&, const at::Tensor& input, const at::Tensor& lengths,
                        bool batch_first) {
  const auto plain_lengths = agreed_value(lengths);
  if (!plain_lengths) {
    return std::nullopt;
  }
  return pack_rows(input, *plain_lengths, batch_first);
}

Two pack_rule(Level& level, const at::Tensor& input, const at::Tensor& lengths, bool batch_first) {
  const auto packed = pack(level, input, lengths, batch_first);
  TORCH_CHECK(packed, "functorch_ext.vmap: _pack_padded_sequence would pack sequences whose ",
              "lengths differ between samples, into results of several shapes. Pad them and mask ",
              "the padding instead.");
  return {std::get<0>(*packed), wrap(std::get<1>(*packed), no_bdim, level)};
}

Two pack_with_tangents(c10::DispatchKeySet keys, const at::Tensor& input, const at::Tensor& lengths,
                       bool batch_first) {
  const auto plain_lengths = agreed_value(lengths);
  if (any_tangent(input) && plain_lengths) {
    return pack_rows(input, *plain_lengths, batch_first);
  }
  return at::_ops::_pack_padded_sequence::redispatch(below_derivatives(keys), input, lengths,
                                                     batch_first);
}

// The gradient of padding is zero: each row of the result is a row of `grad`, or one of zeros.
std::optional<at::Tensor> pack_backward(Level&, const at::Tensor& grad,
                                        c10::SymIntArrayRef input_size,
                                        const at::Tensor& batch_sizes, bool batch_first) {
  const auto counts = counts_of(batch_sizes);
  if (!counts) {
    return std::nullopt;
  }
  TORCH_CHECK(input_size.size() >= 2, "expected an input of shape (time, N, ...), but got ",
              input_size);
  const auto steps = input_size[batch_first ? 1 : 0].guard_int(__FILE__, __LINE__);
  const auto sequences = input_size[batch_first ? 0 : 1].guard_int(__FILE__, __LINE__);
  std::vector<int64_t> sources(steps * sequences, 0);
  int64_t row = 0;
  for (size_t step = 0; step < counts->size(); ++step) {
    for (int64_t sequence = 0; sequence < (*counts)[step]; ++sequence) {
      sources[step * sequences + sequence] = ++row;
    }
  }
  const auto zeros = at::zeros_like(grad.narrow(0, 0, 1));
  const auto positions = at::tensor(sources, at::kLong).to(grad.device());
  const auto gradient =
      at::cat({zeros, grad}).index_select(0, positions).unflatten(0, {steps, sequences});
  return batch_first ? gradient.transpose(0, 1) : gradient;
}

std::optional<Two> pad(Level&, const at::Tensor& data, const at::Tensor& batch_sizes,
                       bool batch_first, const at::Scalar& padding_value, int64_t total_length) {
  const auto plain_sizes = agreed_value(batch_sizes);
  if (!plain_sizes) {
    return std::nullopt;
  }
  // Row 0 is padding.
  const auto numbers = at::arange(1, data.size(0) + 1, at::kLong).unsqueeze(1);
  const auto [positions, lengths] =
      at::_pad_packed_sequence(numbers, *plain_sizes, batch_first, 0, total_length);
  const auto padding = at::full_like(data.narrow(0, 0, 1), padding_value);
  const auto padded = at::cat({padding, data})
                          .index_select(0, positions.flatten().to(data.device()))
                          .unflatten(0, positions.sizes().slice(0, 2));
  return Two(padded, lengths);
}

}  // namespace

void register_recurrent_packed_rules() {
  add_decomposition<at::_ops::lstm_data>(lstm);
  add_decomposition<at::_ops::gru_data>(simple<RecurrentKind::Gru>);
  add_decomposition<at::_ops::rnn_tanh_data>(simple<RecurrentKind::Tanh>);
  add_decomposition<at::_ops::rnn_relu_data>(simple<RecurrentKind::Relu>);

  add<at::_ops::_pack_padded_sequence>(pack_rule, pack);
  add_decomposition<at::_ops::_pack_padded_sequence_backward>(pack_backward);
  add_decomposition<at::_ops::_pad_packed_sequence>(pad);
  add_derivative_kernel<at::_ops::_pack_padded_sequence>(pack_with_tangents);
}

}  // namespace functorch_ext
