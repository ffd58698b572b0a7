#include "batching/layers_in_turn.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <cstring>

#include "engine/threads.h"

namespace functorch_ext {

namespace {

// Bytes of all layers' inputs and outputs that no core's own cache holds.
constexpr int64_t beyond_cache = int64_t{1} << 21;
// And of a layer's, so that its arithmetic takes much longer than the calls of operators.
constexpr int64_t fewest_bytes_of_layer = int64_t{1} << 18;
// A product of so many bytes is written with zeros first: they come into the cache line after line,
// faster than a kernel for products would fetch it tile by tile.
constexpr size_t bytes_fetched = size_t{1} << 20;

void multiply(at::Tensor product, const at::Tensor& left, const at::Tensor& right) {
  if (product.nbytes() <= bytes_fetched) {
    std::memset(product.mutable_data_ptr(), 0, product.nbytes());
  }
  at::mm_out(product, left, right);
}

}  // namespace

bool are_better_in_turn(int64_t layers, int64_t bytes_of_layer) {
  return layers > 1 && bytes_of_layer >= fewest_bytes_of_layer &&
         layers * bytes_of_layer >= threads_for_work() * beyond_cache && keeps_threads_busy(layers);
}

at::Tensor layers_in_turn(const at::Tensor& input, const at::Tensor& weight,
                          const at::Tensor& bias) {
  const auto output = at::empty({input.size(0), input.size(1), weight.size(1)}, input.options());
  on_all_threads(output.size(0), 1, [&](int64_t start, int64_t end) {
    for (auto i = start; i < end; ++i) {
      auto own = output[i];
      if (bias.defined()) {
        at::addmm_out(own, bias[i], input[i], weight[i].t());
      } else {
        multiply(own, input[i], weight[i].t());
      }
    }
  });
  return output;
}

LayerGradients layer_gradients_in_turn(const at::Tensor& cotangent, const at::Tensor& input,
                                       const at::Tensor& weight, std::array<bool, 3> wanted) {
  const auto [by_input, by_weight, by_bias] = wanted;
  const auto members = cotangent.size(0), outputs = cotangent.size(-1);
  const auto rows = cotangent.numel() / (members * outputs);
  const auto matrix = [&](const at::Tensor& stack, int64_t member) {
    return stack[member].reshape({rows, stack.size(-1)});
  };
  const auto empty = [&](at::IntArrayRef sizes) { return at::empty(sizes, cotangent.options()); };
  LayerGradients result;
  if (by_input) {
    result.input = empty({members, rows, weight.size(2)});
  }
  if (by_weight) {
    result.weight = empty({members, outputs, input.size(-1)});
  }
  if (by_bias) {
    result.bias = empty({members, outputs});
  }
  on_all_threads(members, 1, [&](int64_t start, int64_t end) {
    for (auto i = start; i < end; ++i) {
      const auto own = matrix(cotangent, i);
      if (by_bias) {
        auto sum = result.bias[i];
        at::sum_out(sum, own, 0);
      }
      if (by_weight) {
        multiply(result.weight[i], own.t(), matrix(input, i));
      }
      if (by_input) {
        multiply(result.input[i], own, weight[i]);
      }
    }
  });
  return result;
}

}  // namespace functorch_ext
