#include "batching/recurrent_members.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mkldnn_rnn_layer.h>
#include <ATen/ops/mkldnn_rnn_layer_backward.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

namespace functorch_ext::recurrent {

namespace {

// The mode that oneDNN's operators call an LSTM.
constexpr int64_t lstm_mode = 2;
// Of fewer multiplications, the time of oneDNN's calls is that of preparing them.
constexpr int64_t fewest_multiplications = int64_t{1} << 21;

at::Tensor own(const at::Tensor& stack, int64_t member) {
  return stack.defined() ? stack[member].contiguous() : at::Tensor();
}

// Into a stack of what all members have, which the first one makes.
void put(at::Tensor& stack, const at::Tensor& tensor, int64_t member, int64_t members) {
  if (!stack.defined()) {
    auto sizes = tensor.sizes().vec();
    sizes.insert(sizes.begin(), members);
    stack = at::empty(sizes, tensor.options());
  }
  stack[member].copy_(tensor);
}

struct Member {
  Member(const MemberLayers& layers, int64_t i)
      : input(own(layers.input, i)),
        hidden(own(layers.hidden, i)),
        cell(own(layers.cell, i)),
        of_input(own(layers.of_input, i)),
        of_state(own(layers.of_state, i)),
        bias_of_input(own(layers.bias_of_input, i)),
        bias_of_state(own(layers.bias_of_state, i)),
        has_biases(bias_of_input.defined()),
        size(hidden.size(-1)) {
    if (!has_biases) {
      bias_of_input = bias_of_state = at::zeros({of_input.size(0)}, of_input.options());
    }
  }

  at::Tensor input, hidden, cell, of_input, of_state, bias_of_input, bias_of_state;
  bool has_biases;
  int64_t size;
};

}  // namespace

bool is_better_fused(at::ScalarType type, int64_t multiplications) {
  return type == at::kFloat && multiplications >= fewest_multiplications &&
         at::globalContext().hasMKLDNN() && at::globalContext().userEnabledMkldnn();
}

MemberOutputs run(const MemberLayers& layers, std::vector<MemberTrace>* traces) {
  // Without grad mode oneDNN's operator keeps no workspace. Nothing is recorded below autograd.
  const c10::AutoGradMode keeps_workspace(traces != nullptr);
  const auto members = layers.input.size(0);
  MemberOutputs result;
  for (int64_t i = 0; i < members; ++i) {
    const Member of(layers, i);
    MemberTrace trace;
    std::tie(trace.output, trace.hidden, trace.cell, trace.workspace) = at::mkldnn_rnn_layer(
        of.input, of.of_input, of.of_state, of.bias_of_input, of.bias_of_state, of.hidden, of.cell,
        layers.reverse, /*batch_sizes=*/{}, lstm_mode, of.size, /*num_layers=*/1, of.has_biases,
        /*bidirectional=*/false, /*batch_first=*/false, /*train=*/traces != nullptr);
    put(result.output, trace.output, i, members);
    put(result.hidden, trace.hidden.view({-1, of.size}), i, members);
    put(result.cell, trace.cell.view({-1, of.size}), i, members);
    if (traces) {
      traces->push_back(std::move(trace));
    }
  }
  return result;
}

MemberGradients pull_back(const MemberLayers& layers, const std::vector<MemberTrace>& traces,
                          const MemberOutputs& cotangents) {
  const auto members = layers.input.size(0);
  MemberGradients result;
  for (int64_t i = 0; i < members; ++i) {
    const Member of(layers, i);
    const auto& trace = traces[i];
    const auto [input, of_input, of_state, bias_of_input, bias_of_state, hidden, cell] =
        at::mkldnn_rnn_layer_backward(
            of.input, of.of_input, of.of_state, of.bias_of_input, of.bias_of_state, of.hidden,
            of.cell, trace.output, trace.hidden, trace.cell, own(cotangents.output, i),
            own(cotangents.hidden, i), own(cotangents.cell, i), layers.reverse, lstm_mode, of.size,
            /*num_layers=*/1, of.has_biases, /*train=*/true, /*bidirectional=*/false,
            /*batch_sizes=*/{}, /*batch_first=*/false, trace.workspace);
    put(result.input, input, i, members);
    put(result.of_input, of_input, i, members);
    put(result.of_state, of_state, i, members);
    put(result.bias_of_input, bias_of_input, i, members);
    put(result.bias_of_state, bias_of_state, i, members);
    put(result.hidden, hidden.view({-1, of.size}), i, members);
    put(result.cell, cell.view({-1, of.size}), i, members);
  }
  return result;
}

}  // namespace functorch_ext::recurrent
