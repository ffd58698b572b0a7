// PyTorch's kernel sums for the weights over all rows that it gets. Those of each sample alone
// would take it a call for each, or operators that read and write all numbers several times.
#include "batching/layer_norm_gradients.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "batching/vectorized.h"
#include "engine/threads.h"

namespace functorch_ext {

namespace {

// Of one row: where its numbers are, and those of its sample.
template <class Number>
struct NormRow {
  const Number* grad;
  const Number* input;
  const Number* weight;
  Number mean;
  Number rstd;
};

// Adds to the gradients of weight and bias; into `sums`, those of the scaled gradient and of its
// product with the normalized numbers. Sixteen numbers at a time, which GCC computes in vectors.
template <bool has_weight, class Number>
FUNCTORCH_EXT_VECTORIZED void add_norm_row(const NormRow<Number>& row, int64_t size,
                                           Number* __restrict of_weight, Number* __restrict of_bias,
                                           Number (&sums)[2]) {
  constexpr int64_t lanes = 16;
  Number scaled[lanes] = {}, products[lanes] = {};
  const auto* __restrict grad = row.grad;
  const auto* __restrict input = row.input;
  const auto* __restrict weight = row.weight;
  const auto mean = row.mean, rstd = row.rstd;
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    for (int64_t k = 0; k < lanes; ++k) {
      const auto product = grad[i + k] * ((input[i + k] - mean) * rstd);
      of_weight[i + k] += product;
      of_bias[i + k] += grad[i + k];
      scaled[k] += has_weight ? grad[i + k] * weight[i + k] : grad[i + k];
      products[k] += has_weight ? product * weight[i + k] : product;
    }
  }
  sums[0] = sums[1] = 0;
  for (; i < size; ++i) {
    const auto product = grad[i] * ((input[i] - mean) * rstd);
    of_weight[i] += product;
    of_bias[i] += grad[i];
    sums[0] += has_weight ? grad[i] * weight[i] : grad[i];
    sums[1] += has_weight ? product * weight[i] : product;
  }
  for (int64_t k = 0; k < lanes; ++k) {
    sums[0] += scaled[k];
    sums[1] += products[k];
  }
}

template <bool has_weight, class Number>
FUNCTORCH_EXT_VECTORIZED void norm_input_gradient(const NormRow<Number>& row, int64_t size,
                                                  const Number (&sums)[2],
                                                  Number* __restrict gradient) {
  const auto* __restrict grad = row.grad;
  const auto* __restrict input = row.input;
  const auto* __restrict weight = row.weight;
  const auto mean = row.mean, rstd = row.rstd;
  const auto average = sums[0] / static_cast<Number>(size);
  const auto slope = rstd * (sums[1] / static_cast<Number>(size));
  for (int64_t i = 0; i < size; ++i) {
    const auto scaled = has_weight ? grad[i] * weight[i] : grad[i];
    gradient[i] = rstd * (scaled - average - (input[i] - mean) * slope);
  }
}

template <class Number, bool has_weight>
void norm_gradients(const at::Tensor& grad, const at::Tensor& input, const at::Tensor& mean,
                    const at::Tensor& rstd, const at::Tensor& weight, const at::Tensor& of_input,
                    const at::Tensor& of_weight, const at::Tensor& of_bias) {
  const auto samples = of_weight.size(0), size = of_weight.size(1);
  const auto rows = mean.numel() / samples;
  const auto numbers = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.const_data_ptr<Number>() : nullptr;
  };
  const auto *grads = numbers(grad), *inputs = numbers(input), *means = numbers(mean),
             *rstds = numbers(rstd), *weights = numbers(weight);
  const auto step = has_weight && weight.dim() == 2 ? size : 0;
  auto* input_gradients = of_input.defined() ? of_input.mutable_data_ptr<Number>() : nullptr;
  auto* weight_gradients = of_weight.mutable_data_ptr<Number>();
  auto* bias_gradients = of_bias.mutable_data_ptr<Number>();
  constexpr int64_t fewest = 1 << 15;  // numbers that are worth another thread
  const auto grain = std::max<int64_t>(fewest / (rows * size), 1);
  on_all_threads(samples, grain, [&](int64_t start, int64_t end) {
    for (auto sample = start; sample < end; ++sample) {
      for (auto i = sample * rows; i < (sample + 1) * rows; ++i) {
        const NormRow<Number> row{grads + i * size, inputs + i * size,
                                  has_weight ? weights + sample * step : nullptr, means[i],
                                  rstds[i]};
        Number sums[2];
        add_norm_row<has_weight>(row, size, weight_gradients + sample * size,
                                 bias_gradients + sample * size, sums);
        if (input_gradients) {
          norm_input_gradient<has_weight>(row, size, sums, input_gradients + i * size);
        }
      }
    }
  });
}

template <class Number>
constexpr auto norm_gradients_for(bool has_weight) {
  return has_weight ? &norm_gradients<Number, true> : &norm_gradients<Number, false>;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm_gradients(
    const at::Tensor& grad, const at::Tensor& input, const at::Tensor& mean, const at::Tensor& rstd,
    const at::Tensor& weight, int64_t size, bool of_input) {
  const auto from = grad.contiguous(), to = input.contiguous();
  const auto input_gradient = of_input ? at::empty_like(from) : at::Tensor();
  const auto sums = [&] { return at::zeros({grad.size(0), size}, grad.options()); };
  const auto weight_gradient = sums(), bias_gradient = sums();
  const bool has_weight = weight.defined();
  const auto compute = grad.scalar_type() == at::kDouble ? norm_gradients_for<double>(has_weight)
                                                         : norm_gradients_for<float>(has_weight);
  compute(from, to, mean.contiguous(), rstd.contiguous(),
          has_weight ? weight.contiguous() : at::Tensor(), input_gradient, weight_gradient,
          bias_gradient);
  return {input_gradient, weight_gradient, bias_gradient};
}

}  // namespace functorch_ext
