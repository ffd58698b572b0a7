#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

namespace functorch_ext {

// What a jitted function is compiled for: all of a call but the values of its tensors.
//
// `numbers` has containers, tensors and the thread's modes; `objects`, which a signature only
// borrows, what is compared by value: keys of dicts, numbers, strings, static arguments.
struct CallSignature {
  c10::SmallVector<int64_t, 64> numbers;
  c10::SmallVector<PyObject*, 8> objects;
  c10::SmallVector<const at::Tensor*, 16> tensors;

  size_t hash() const;
  bool operator==(const CallSignature& other) const;
};

// Which arguments are static: compared by value, whatever they are. A position counts from the end
// where it is negative.
struct StaticArguments {
  std::vector<int64_t> positions;
  std::vector<std::string> names;

  bool has_position(int64_t position, int64_t count) const;
  bool has_name(PyObject* name) const;
};

// Appends all that a graph of fixed sizes depends on; false for tensors that no graph takes.
bool append_tensor(c10::SmallVectorImpl<int64_t>& numbers, const at::Tensor& tensor);

// The signature of f(*args, **kwargs), in `signature`. False where an argument is neither a plain
// tensor, number or string nor a plain container of those, or a static one can't be hashed.
bool read_call(const pybind11::tuple& args, const pybind11::dict& kwargs,
               const StaticArguments& statics, CallSignature& signature);

}  // namespace functorch_ext
