#pragma once

#include <pybind11/pybind11.h>

namespace functorch_ext {

// What becomes of what a builtin function of PyTorch returns, or of its `self`.
enum class BuiltinRole : uint8_t {
  Makes,         // a new tensor, such as torch.zeros: it belongs to the transform
  MakesBetween,  // likewise, of bounds that PyTorch takes for constants: `of_elements` comes first
  Copies,        // likewise, but it may be part of a graph, and then doesn't
  HandsOut,      // the memory of a tensor, to somebody who expects to see later writes
  HandsPointer,  // the address of a tensor's memory
  Reads,         // what is in a tensor's memory
  Computes,      // a tensor that may be new, or one of the program's, or share memory with one
};

// Tells the engine of a builtin function, or a method of a builtin type (see engine/own_memory.h).
//
// `of_elements`, if not none: where the function fails inside a transform, this is called with the
// same arguments, and what it returns (unless that is NotImplemented) is the result. Of what is
// made between bounds it is called first. Returns the function's index.
size_t watch_builtin(const pybind11::object& function, BuiltinRole role,
                     const pybind11::object& of_elements);

// Gives a function its own code back, or the engine's once more. `index` is what it got when it was
// first watched.
void set_watched(size_t index, bool on);

// A subclass by which PyTorch traces, such as FakeTensor: what the functions make of it is a
// transform's own, as plain tensors are; other subclasses stay as they are.
void add_type_of_fakes(const pybind11::type& type);

// A tensor that the program has just made by other means, as the transform's own.
pybind11::object own_tensor(const pybind11::object& tensor);

}  // namespace functorch_ext
