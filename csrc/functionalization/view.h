#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <functional>
#include <vector>

namespace functorch_ext {

// One view operator as it was called: how to get from a value to the view of it, and back.
struct View {
  c10::OperatorHandle op;
  std::vector<c10::IValue> arguments;  // on the plane below; the one viewed is left out
  size_t self;                         // where it goes
  size_t output = 0;                   // which of the operator's results, for split and the like
  std::vector<c10::SymInt> parent_sizes;
  std::vector<c10::SymInt> sizes;
  at::ScalarType parent_dtype;
};

// How functionalize computes views: with operators that view, or with operators that copy.
enum class ViewStyle : bool { View, Copy };

// All results of the view operator, as it stands on the stack with arguments of the plane below.
std::vector<at::Tensor> call_view(const c10::OperatorHandle& op, torch::jit::Stack arguments,
                                  ViewStyle style);

// The view of another value of the same sizes.
at::Tensor replay(const View& view, const at::Tensor& parent, ViewStyle style);

// The parent's value after its view got the value `written`. `parent` computes the value before,
// which operators that view all elements don't need.
at::Tensor write_through(const View& view, const std::function<at::Tensor()>& parent,
                         const at::Tensor& written, ViewStyle style);

// `value` with other sizes: a view or a copy.
at::Tensor reshaped(const at::Tensor& value, c10::SymIntArrayRef sizes, ViewStyle style);

}  // namespace functorch_ext
