#include "batching/recurrent_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsub.h>
#include <ATen/ops/sigmoid_backward.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros_like.h>

namespace functorch_ext::recurrent {

at::Tensor by_sample(const at::Tensor& rows, int64_t samples) {
  const auto time = rows.size(0), size = rows.size(2);
  return rows.view({time, samples, -1, size}).transpose(0, 1).reshape({samples, -1, size});
}

at::Tensor by_time(const at::Tensor& rows, int64_t time) {
  const auto samples = rows.size(0), size = rows.size(2);
  return rows.view({samples, time, -1, size}).transpose(0, 1).reshape({time, -1, size});
}

at::Tensor times(const at::Tensor& rows, const at::Tensor& weights, int64_t samples) {
  const auto time = rows.size(0);
  return weights.dim() == 2 ? at::mm(rows.flatten(0, 1), weights).view({time, rows.size(1), -1})
                            : by_time(at::bmm(by_sample(rows, samples), weights), time);
}

namespace {

using Steps = std::vector<at::Tensor>;

// sum += rows * weights, of one step.
void add_product(at::Tensor& sum, const at::Tensor& rows, const at::Tensor& weights,
                 int64_t samples) {
  if (weights.dim() == 2) {
    sum.addmm_(rows, weights);
    return;
  }
  const auto by_row = [&](const at::Tensor& tensor) {
    return tensor.view({samples, -1, tensor.size(1)});
  };
  by_row(sum).baddbmm_(by_row(rows), weights);
}

// A bias next to the rows of a step.
at::Tensor next_to_rows(const at::Tensor& bias, int64_t samples, int64_t rows) {
  return bias.dim() == 1 ? bias
                         : bias.unsqueeze(1)
                               .expand({samples, rows / samples, bias.size(1)})
                               .reshape({rows, bias.size(1)});
}

at::Tensor gates_of_input(const Layer& layer, const at::Tensor& bias) {
  auto gates = times(layer.input, layer.of_input.mT(), layer.samples);
  return bias.defined() ? gates.add_(next_to_rows(bias, layer.samples, gates.size(1))) : gates;
}

// `count` of the gates, from the given one on.
at::Tensor gates(const at::Tensor& all, int64_t size, int64_t from, int64_t count = 1) {
  return all.narrow(2, from * size, count * size);
}

// What a state is in all steps and at their beginning.
at::Tensor states_from(const at::Tensor& first, int64_t time) {
  auto states = at::empty({time + 1, first.size(0), first.size(1)}, first.options());
  states[0].copy_(first);
  return states;
}

class Forward {
 public:
  explicit Forward(const Layer& layer)
      : layer_(layer),
        time_(layer.input.size(0)),
        size_(layer.hidden.size(1)),
        of_state_(layer.of_state.mT()) {
    trace_.hiddens = states_from(layer.hidden, time_);
    hiddens_ = trace_.hiddens.unbind(0);
  }

  Trace run(void (Forward::*kind)()) {
    (this->*kind)();
    return std::move(trace_);
  }

  void lstm() {
    trace_.gates = gates_of_input(layer_, bias());
    trace_.cells = states_from(layer_.cell, time_);
    trace_.squashed = at::empty_like(trace_.hiddens.narrow(0, 0, time_));
    const auto steps = [&](int64_t from, int64_t count = 1) {
      return gates(trace_.gates, size_, from, count).unbind(0);
    };
    auto all = trace_.gates.unbind(0), in_and_forget = steps(0, 2), proposed = steps(2);
    auto in = steps(0), forget = steps(1), out = steps(3);
    auto cells = trace_.cells.unbind(0), squashed = trace_.squashed.unbind(0);
    for (int64_t i = 0; i < time_; ++i) {
      add_state(all[i], i);
      in_and_forget[i].sigmoid_();
      proposed[i].tanh_();
      out[i].sigmoid_();
      at::mul_out(cells[i + 1], forget[i], cells[i]);
      cells[i + 1].addcmul_(in[i], proposed[i]);
      at::tanh_out(squashed[i], cells[i + 1]);
      at::mul_out(hiddens_[i + 1], out[i], squashed[i]);
    }
  }

  void gru() {
    trace_.gates = gates_of_input(layer_, layer_.bias_of_input);
    trace_.gates_of_state = at::zeros_like(trace_.gates);
    if (layer_.bias_of_state.defined()) {
      const auto rows = trace_.gates.size(1);
      trace_.gates_of_state += next_to_rows(layer_.bias_of_state, layer_.samples, rows);
    }
    auto of_state = trace_.gates_of_state.unbind(0);
    const auto resets_of_state = gates(trace_.gates_of_state, size_, 0, 2).unbind(0);
    const auto proposed_of_state = gates(trace_.gates_of_state, size_, 2).unbind(0);
    auto both = gates(trace_.gates, size_, 0, 2).unbind(0);
    const auto reset = gates(trace_.gates, size_, 0).unbind(0);
    const auto update = gates(trace_.gates, size_, 1).unbind(0);
    auto proposed = gates(trace_.gates, size_, 2).unbind(0);
    for (int64_t i = 0; i < time_; ++i) {
      add_state(of_state[i], i);
      both[i].add_(resets_of_state[i]).sigmoid_();
      proposed[i].addcmul_(reset[i], proposed_of_state[i]).tanh_();
      at::lerp_out(hiddens_[i + 1], proposed[i], hiddens_[i], update[i]);
    }
  }

  void without_gates() {
    auto sums = gates_of_input(layer_, bias()).unbind(0);
    for (int64_t i = 0; i < time_; ++i) {
      add_state(sums[i], i);
      if (layer_.kind == RecurrentKind::Tanh) {
        at::tanh_out(hiddens_[i + 1], sums[i]);
      } else {
        at::relu_out(hiddens_[i + 1], sums[i]);
      }
    }
  }

 private:
  void add_state(at::Tensor& sum, int64_t step) {
    add_product(sum, hiddens_[step], of_state_, layer_.samples);
  }
  // Both are added at once.
  at::Tensor bias() const {
    return layer_.bias_of_input.defined() ? layer_.bias_of_input + layer_.bias_of_state
                                          : at::Tensor();
  }

  const Layer& layer_;
  const int64_t time_;
  const int64_t size_;
  const at::Tensor of_state_;
  Trace trace_;
  Steps hiddens_;
};

// A step back is linear in the gradients of its states, so what they are multiplied by is known of
// all steps beforehand.
class Backward {
 public:
  Backward(const Layer& layer, const Trace& trace, const Cotangents& cotangents)
      : layer_(layer),
        trace_(trace),
        time_(trace.hiddens.size(0) - 1),
        size_(trace.hiddens.size(2)),
        before_(trace.hiddens.narrow(0, 0, time_)),
        after_(trace.hiddens.narrow(0, 1, time_)),
        all_hidden_(cotangents.output.defined() ? cotangents.output.clone()
                                                : at::zeros_like(after_)),
        hidden_(all_hidden_.unbind(0)) {
    if (cotangents.hidden.defined()) {
      hidden_.back() += cotangents.hidden;
    }
    if (layer.cell.defined()) {
      result_.cell =
          cotangents.cell.defined() ? cotangents.cell.clone() : at::zeros_like(layer.cell);
    }
    result_.hidden = at::zeros_like(layer.hidden);
  }

  Gradients run(void (Backward::*kind)()) {
    (this->*kind)();
    return std::move(result_);
  }

  void lstm() {
    const auto gate = [&](int64_t i) { return gates(trace_.gates, size_, i); };
    auto of_gates = at::empty_like(trace_.gates);
    const auto of_gate = [&](int64_t i) { return gates(of_gates, size_, i); };
    auto into_in = of_gate(0), into_forget = of_gate(1), into_proposed = of_gate(2),
         into_out = of_gate(3);
    at::sigmoid_backward_out(into_in, gate(2), gate(0));
    at::sigmoid_backward_out(into_forget, trace_.cells.narrow(0, 0, time_), gate(1));
    at::tanh_backward_out(into_proposed, gate(0), gate(2));
    at::sigmoid_backward_out(into_out, trace_.squashed, gate(3));
    const auto cell_by_hidden = at::tanh_backward(gate(3), trace_.squashed).unbind(0);
    const auto forget = gate(1).unbind(0);
    const auto of_all = of_gates.unbind(0);
    auto through_cell = gates(of_gates, size_, 0, 3).unflatten(2, {3, size_}).unbind(0);
    auto through_hidden = into_out.unbind(0);
    auto& cell = result_.cell;
    for (auto i = time_ - 1; i >= 0; --i) {
      cell.addcmul_(hidden_[i], cell_by_hidden[i]);
      through_cell[i].mul_(cell.unsqueeze(1));
      through_hidden[i].mul_(hidden_[i]);
      cell.mul_(forget[i]);
      add_from_gates(of_all[i], i);
    }
    result_.gates_of_input = result_.gates_of_state = of_gates;
  }

  void gru() {
    const auto reset = gates(trace_.gates, size_, 0), update = gates(trace_.gates, size_, 1),
               proposed = gates(trace_.gates, size_, 2);
    auto of_state = at::empty_like(trace_.gates);
    auto into_reset = gates(of_state, size_, 0), into_update = gates(of_state, size_, 1),
         into_proposed = gates(of_state, size_, 2);
    const auto by_proposed = at::tanh_backward(at::rsub(update, 1), proposed);
    at::sigmoid_backward_out(into_reset, by_proposed * gates(trace_.gates_of_state, size_, 2),
                             reset);
    at::sigmoid_backward_out(into_update, before_ - proposed, update);
    at::mul_out(into_proposed, by_proposed, reset);
    const auto of_all = of_state.unbind(0);
    auto of_each = of_state.unflatten(2, {3, size_}).unbind(0);
    const auto kept = update.unbind(0);
    for (auto i = time_ - 1; i >= 0; --i) {
      of_each[i].mul_(hidden_[i].unsqueeze(1));
      hidden_before(i).addcmul_(hidden_[i], kept[i]);
      add_from_gates(of_all[i], i);
    }
    result_.gates_of_state = of_state;
    result_.gates_of_input = of_state.clone();
    auto of_input_proposed = gates(result_.gates_of_input, size_, 2);
    at::mul_out(of_input_proposed, all_hidden_, by_proposed);
  }

  void without_gates() {
    const bool is_tanh = layer_.kind == RecurrentKind::Tanh;
    const auto after = after_.unbind(0);
    auto of_sums = at::empty_like(after_);
    auto of_all = of_sums.unbind(0);
    for (auto i = time_ - 1; i >= 0; --i) {
      if (is_tanh) {
        at::tanh_backward_out(of_all[i], hidden_[i], after[i]);
      } else {
        at::threshold_backward_out(of_all[i], hidden_[i], after[i], 0);
      }
      add_from_gates(of_all[i], i);
    }
    result_.gates_of_input = result_.gates_of_state = of_sums;
  }

 private:
  at::Tensor& hidden_before(int64_t step) {
    return step > 0 ? hidden_[step - 1] : result_.hidden;
  }
  void add_from_gates(const at::Tensor& of_gates, int64_t step) {
    add_product(hidden_before(step), of_gates, layer_.of_state, layer_.samples);
  }

  const Layer& layer_;
  const Trace& trace_;
  const int64_t time_;
  const int64_t size_;
  const at::Tensor before_, after_;  // the hidden states on either side of a step
  at::Tensor all_hidden_;            // gradients of the hidden states after each step
  Steps hidden_;
  Gradients result_;
};

// What a kind of layer computes, in both directions.
struct Kind {
  void (Forward::*forward)();
  void (Backward::*backward)();
};

Kind computed(RecurrentKind kind) {
  switch (kind) {
    case RecurrentKind::Lstm:
      return {&Forward::lstm, &Backward::lstm};
    case RecurrentKind::Gru:
      return {&Forward::gru, &Backward::gru};
    default:
      return {&Forward::without_gates, &Backward::without_gates};
  }
}

}  // namespace

Trace run(const Layer& layer) {
  return Forward(layer).run(computed(layer.kind).forward);
}

Gradients pull_back(const Layer& layer, const Trace& trace, const Cotangents& cotangents) {
  return Backward(layer, trace, cotangents).run(computed(layer.kind).backward);
}

}  // namespace functorch_ext::recurrent
