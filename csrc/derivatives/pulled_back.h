#pragma once

#include "autodiff/forward_by_reverse.h"
#include "autodiff/plane.h"
#include "batching/operators.h"

namespace functorch_ext {

// The gradient of `input` by a function of it alone that is made of operators with all derivatives:
// what a backward operator computes, where it is differentiated itself. `others` are the tensors
// that the function knows besides.
template <class Function>
at::Tensor pulled_back(const Function& function, const at::Tensor& input,
                       const at::Tensor& cotangent, std::vector<at::Tensor> others = {}) {
  others.insert(others.end(), {input, cotangent});
  const auto plane = plane_of(others);
  const TensorFunction of_tensors = [&](const std::vector<at::Tensor>& inputs) {
    return std::vector<at::Tensor>{function(inputs[0])};
  };
  auto gradient =
      pull_back(of_tensors, {lift_to(input, plane)}, /*wanted=*/{0}, {cotangent}, {0}, plane)[0];
  return gradient.defined() ? gradient : at::zeros_like(input);
}

}  // namespace functorch_ext
