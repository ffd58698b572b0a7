#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

// LSTM layers with weights of their own, as an ensemble's members have, one after the other: of one
// in float32, oneDNN computes all steps in one call, and all gradients in another. Steps of all
// layers at once are more calls, and go through the memory of all of them at each step.
namespace functorch_ext::recurrent {

struct MemberLayers {
  at::Tensor input;                         // (members, time, rows, features)
  at::Tensor hidden, cell;                  // first states, (members, rows, size)
  at::Tensor of_input, of_state;            // (members, gates, features)
  at::Tensor bias_of_input, bias_of_state;  // (members, gates), or undefined
  bool reverse;
};

// Does PyTorch take oneDNN for such a layer of one member, and is it large enough for that to be
// faster than steps of all members? `multiplications` are those of one member, forward.
bool is_better_fused(at::ScalarType type, int64_t multiplications);

// What a member's layer computed, and keeps for the backward pass.
struct MemberTrace {
  at::Tensor output, hidden, cell, workspace;
};

// Stacks, as the layers' are.
struct MemberOutputs {
  at::Tensor output, hidden, cell;
};
// `traces` is null where there is no backward pass.
MemberOutputs run(const MemberLayers& layers, std::vector<MemberTrace>* traces);

struct MemberGradients {
  at::Tensor input, of_input, of_state, bias_of_input, bias_of_state, hidden, cell;
};
// Cotangents may be undefined.
MemberGradients pull_back(const MemberLayers& layers, const std::vector<MemberTrace>& traces,
                          const MemberOutputs& cotangents);

}  // namespace functorch_ext::recurrent
