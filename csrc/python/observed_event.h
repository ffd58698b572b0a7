#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "python/planes.h"

namespace functorch_ext {

// A call of an operator, a node of autograd's graph that runs backward, or a custom function.
struct ObservedEvent {
  std::string name;
  bool is_operator = false;
  bool is_node = false;
  int64_t parent = -1;  // the event inside which it happens
  Plane plane;          // the deepest among its arguments and results
  bool batched = false;
  bool in_rule = false;    // part of the rule for an operator of the same level
  bool inherits = false;   // no other code of Python runs than when `parent` began
  pybind11::object where;  // what locate() returned; of an event that inherits, None
  int64_t forward = -1;    // of a node: the event that recorded it
  std::string loop;        // what was said of a loop over samples
  double seconds = 0;      // with all that happens inside
  int64_t allocated = -1;  // bytes; -1 if that isn't known
  bool failed = false;

  // While it lasts: Python's frame, which is compared alone, and what had been allocated before.
  const void* frame = nullptr;
  int64_t allocated_before = 0;

  // Takes note of the deepest plane.
  void look_at(c10::ArrayRef<c10::IValue> values);
};

// Are there new numbers among an operator's results?
bool computes_numbers(const at::RecordFunction& function, c10::ArrayRef<c10::IValue> inputs);

std::vector<at::Tensor> tensors_in(c10::ArrayRef<c10::IValue> values);

// Kernels of a GPU run on after the operator has returned.
void wait_for_devices(const at::RecordFunction& function);

}  // namespace functorch_ext
