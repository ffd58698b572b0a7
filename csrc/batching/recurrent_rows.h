#pragma once

#include <ATen/core/Tensor.h>

#include "batching/recurrent.h"

// A recurrent layer on plain tensors, forward and backward: few kernels a step, and none for what
// can be computed of all steps at once. Rows: those of the first sample, those of the next one...
namespace functorch_ext::recurrent {

struct Layer {
  RecurrentKind kind;
  int64_t samples;
  at::Tensor input;                         // (time, rows, features)
  at::Tensor hidden, cell;                  // first states, (rows, size)
  at::Tensor of_input, of_state;            // (gates, features); or (samples, gates, features)
  at::Tensor bias_of_input, bias_of_state;  // (gates), or (samples, gates); or undefined
};

// What was computed in each step, (time, rows, ...).
struct Trace {
  at::Tensor gates;           // activated
  at::Tensor gates_of_state;  // of a GRU, before it adds those of the input
  at::Tensor hiddens, cells;  // the first states in front
  at::Tensor squashed;        // tanh of the cells
};

Trace run(const Layer& layer);

// The gradients by the outputs (time, rows, size) and the last states, which may be undefined.
struct Cotangents {
  at::Tensor output, hidden, cell;
};

// The gradients by the first states, and by the gates' parts before they are activated.
struct Gradients {
  at::Tensor gates_of_input, gates_of_state;
  at::Tensor hidden, cell;
};

Gradients pull_back(const Layer& layer, const Trace& trace, const Cotangents& cotangents);

// (time, rows, size) by sample, (samples, time * rows of a sample, size); and back.
at::Tensor by_sample(const at::Tensor& rows, int64_t samples);
at::Tensor by_time(const at::Tensor& rows, int64_t time);

// (time, rows, size) times weights for all samples, or those of its sample. No copy of the rows is
// made where the samples share the weights.
at::Tensor times(const at::Tensor& rows, const at::Tensor& weights, int64_t samples);

}  // namespace functorch_ext::recurrent
