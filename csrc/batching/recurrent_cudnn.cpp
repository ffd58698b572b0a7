// cuDNN's recurrent layers, which have one backward pass and no forward mode. Where a tangent flows
// in, or a backward pass is recorded, the layers are computed step by step.
#include "autodiff/forward_by_reverse.h"
#include "autodiff/plane.h"
#include "batching/operators.h"
#include "batching/recurrent.h"
#include "batching/rules.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

using Layers = at::_ops::_cudnn_rnn;
using LayersBackward = at::_ops::_cudnn_rnn_backward;
// Output, last hidden state, last cell state, workspace, weights in one piece of memory.
using Five = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// Gradients of the input, of the first states, and of the weights.
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, std::vector<at::Tensor>>;

struct Sequences {
  const at::Tensor& input;
  at::TensorList weights;
  const at::Tensor& hidden;
  const OptionalTensor& cell;
  RecurrentNetwork network;
  bool batch_first;

  // What dropout drew can't be drawn again, and packed sequences lie in another way.
  bool can_take_steps(c10::SymIntArrayRef batch_sizes) const {
    return batch_sizes.empty() && !(network.train && network.dropout > 0);
  }
  bool has_cell() const {
    return network.kind == RecurrentKind::Lstm;
  }
  // Of the inputs: sequences and first states come before the weights. There are as many outputs.
  size_t first_weight() const {
    return has_cell() ? 3 : 2;
  }
  // Output, last hidden state and, of an LSTM, last cell state.
  std::vector<at::Tensor> take_steps(const std::vector<at::Tensor>& inputs) const {
    const RecurrentState first{inputs[1], has_cell() ? inputs[2] : at::Tensor()};
    const auto params = at::TensorList(inputs).slice(first_weight());
    const auto [output, last] = step_by_step(network, inputs[0], first, params, batch_first);
    return has_cell() ? std::vector<at::Tensor>{output, last.hidden, last.cell}
                      : std::vector<at::Tensor>{output, last.hidden};
  }
  std::vector<at::Tensor> inputs() const {
    std::vector<at::Tensor> all{input, hidden};
    if (has_cell()) {
      all.push_back(*cell);
    }
    all.insert(all.end(), weights.begin(), weights.end());
    return all;
  }
};

// As cuDNN numbers its modes.
constexpr std::array kinds{RecurrentKind::Relu, RecurrentKind::Tanh, RecurrentKind::Lstm,
                           RecurrentKind::Gru};

RecurrentNetwork network_of(int64_t mode, int64_t stride0, int64_t num_layers, double dropout,
                            bool train, bool bidirectional) {
  return {kinds.at(mode), /*has_biases=*/stride0 >= 4, num_layers, dropout, train, bidirectional};
}

Five layers_with_tangents(c10::DispatchKeySet keys, const at::Tensor& input, at::TensorList weight,
                          int64_t stride0, const OptionalTensor& weight_buf, const at::Tensor& hx,
                          const OptionalTensor& cx, int64_t mode, c10::SymInt hidden_size,
                          c10::SymInt proj_size, int64_t num_layers, bool batch_first,
                          double dropout, bool train, bool bidirectional,
                          c10::SymIntArrayRef batch_sizes, const OptionalTensor& dropout_state) {
  const Sequences sequences{input,
                            weight,
                            hx,
                            cx,
                            network_of(mode, stride0, num_layers, dropout, train, bidirectional),
                            batch_first};
  if (sequences.can_take_steps(batch_sizes) && any_tangent(input, weight, hx, cx)) {
    const auto results = sequences.take_steps(sequences.inputs());
    const auto nothing = at::empty({0}, input.options().dtype(at::kByte));
    return {results[0], results[1], sequences.has_cell() ? results[2] : at::empty_like(nothing),
            nothing, at::empty({0}, input.options())};
  }
  return Layers::redispatch(below_derivatives(keys), input, weight, stride0, weight_buf, hx, cx,
                            mode, std::move(hidden_size), std::move(proj_size), num_layers,
                            batch_first, dropout, train, bidirectional, batch_sizes, dropout_state);
}

Gradients gradients_by_steps(const Sequences& sequences, const OptionalTensor& grad_output,
                             const OptionalTensor& grad_hy, const OptionalTensor& grad_cy,
                             const std::array<bool, 4>& asked) {
  auto inputs = sequences.inputs();
  std::vector<at::Tensor> cotangents;
  std::vector<size_t> given;
  const std::array outputs{&grad_output, &grad_hy, &grad_cy};
  for (size_t i = 0; i < sequences.first_weight(); ++i) {
    if (*outputs[i] && (*outputs[i])->defined()) {
      cotangents.push_back(**outputs[i]);
      given.push_back(i);
    }
  }
  auto all = inputs;
  all.insert(all.end(), cotangents.begin(), cotangents.end());
  const auto plane = plane_of(all);
  std::vector<size_t> wanted(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    inputs[i] = lift_to(inputs[i], plane);
    wanted[i] = i;
  }
  const auto function = [&](const std::vector<at::Tensor>& tensors) {
    return sequences.take_steps(tensors);
  };
  auto gradients = pull_back(function, inputs, wanted, cotangents, given, plane);
  const auto part = [&](size_t i) {
    return gradients[i].defined() ? gradients[i] : at::zeros_like(inputs[i]);
  };
  Gradients result;
  std::get<0>(result) = asked[0] ? part(0) : at::Tensor();
  std::get<1>(result) = asked[1] ? part(1) : at::Tensor();
  std::get<2>(result) = asked[2] && sequences.has_cell() ? part(2) : at::Tensor();
  for (size_t i = sequences.first_weight(); asked[3] && i < inputs.size(); ++i) {
    std::get<3>(result).push_back(part(i));
  }
  return result;
}

Gradients backward_recorded(c10::DispatchKeySet keys, const at::Tensor& input,
                            at::TensorList weight, int64_t stride0, const at::Tensor& weight_buf,
                            const at::Tensor& hx, const OptionalTensor& cx,
                            const at::Tensor& output, const OptionalTensor& grad_output,
                            const OptionalTensor& grad_hy, const OptionalTensor& grad_cy,
                            int64_t mode, c10::SymInt hidden_size, c10::SymInt proj_size,
                            int64_t num_layers, bool batch_first, double dropout, bool train,
                            bool bidirectional, c10::SymIntArrayRef batch_sizes,
                            const OptionalTensor& dropout_state, const at::Tensor& reserve,
                            std::array<bool, 4> asked) {
  const Sequences sequences{input,
                            weight,
                            hx,
                            cx,
                            network_of(mode, stride0, num_layers, dropout, train, bidirectional),
                            batch_first};
  if (sequences.can_take_steps(batch_sizes) &&
      any_differentiated(input, weight, hx, cx, grad_output, grad_hy, grad_cy)) {
    return gradients_by_steps(sequences, grad_output, grad_hy, grad_cy, asked);
  }
  return LayersBackward::redispatch(
      below_derivatives(keys), input, weight, stride0, weight_buf, hx, cx, output, grad_output,
      grad_hy, grad_cy, mode, std::move(hidden_size), std::move(proj_size), num_layers, batch_first,
      dropout, train, bidirectional, batch_sizes, dropout_state, reserve, asked);
}

}  // namespace

void register_recurrent_cudnn_rules() {
  add_derivative_kernel<Layers>(layers_with_tangents);
  add_derivative_kernel<LayersBackward>(backward_recorded);
}

}  // namespace functorch_ext
