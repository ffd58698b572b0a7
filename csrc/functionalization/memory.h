#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/wrapper.h"
#include "functionalization/view.h"

// What stands for memory where nothing is ever written in place.
//
// All tensors of the program that alias each other share one Memory: the value of the tensor that
// they are views of. A tensor is a chain of views from there. A write computes the tensor's new
// value, sends it back up the chain to a new value of the memory, and moves the generation on; a
// tensor of an older generation is viewed again when it is next read.
namespace functorch_ext {

struct Memory final : c10::intrusive_ptr_target {
  Memory(at::Tensor value_) : value(std::move(value_)) {}

  void replace(at::Tensor written);
  // The value, laid out as the program's memory is; `shift`: from the program's storage offsets to
  // those of the result.
  at::Tensor laid_out(c10::SymInt& shift) const;

  at::Tensor value;
  uint64_t generation = 0;  // how often it has been written to
  // The layout that the program sees, noted before the first write.
  std::vector<c10::SymInt> strides;
  c10::SymInt offset;
  // The value before the first write, if what lies between its elements can be seen.
  at::Tensor first;
};

// A tensor's place in memory.
struct Place final : Aliasing {
  Place(c10::intrusive_ptr<Memory> memory_, std::vector<View> chain_)
      : memory(std::move(memory_)), chain(std::move(chain_)) {}

  void update(WrapperImpl& wrapper) const override;

  const c10::intrusive_ptr<Memory> memory;
  const std::vector<View> chain;
};

// A tensor of `level` with memory of its own.
at::Tensor allocate(at::Tensor value, const Level& level);

// The value of a tensor of `level`, up to date; tensors of lower planes are values.
at::Tensor current_value(const at::Tensor& tensor, const Level& level);

// The place of a tensor of `level`; null for constants from outside.
const Place* place_of(const at::Tensor& tensor, const Level& level);

// The results of a view operator on tensors of `level`.
std::vector<at::Tensor> view_of(const c10::OperatorHandle& op, torch::jit::Stack arguments,
                                const Level& level);

// Gives a tensor a new value, for all its aliases to see.
void write(const at::Tensor& tensor, at::Tensor value, const Level& level);

// Makes `tensor` what `other` is: its place, its sizes and strides.
void become(const at::Tensor& tensor, const at::Tensor& other);

}  // namespace functorch_ext
