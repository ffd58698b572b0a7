#include "python/call_mapped.h"

#include <limits>
#include <optional>
#include <vector>

#include "autodiff/plane.h"
#include "engine/frames.h"
#include "python/noted_errors.h"
#include "python/objects.h"
#include "python/plain_trees.h"
#include "python/recorded_after_dispatch.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// A dimension, or one that no tensor has if it is too large for 64 bits.
int64_t dim_of(const py::handle& number) {
  int overflow = 0;
  const auto dim = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  return overflow ? std::numeric_limits<int64_t>::max() : dim;
}

// The dimension of each argument, or none; nothing if in_dims has another form.
std::optional<std::vector<std::optional<int64_t>>> dims_of_arguments(const py::handle& in_dims,
                                                                     size_t count) {
  std::vector<std::optional<int64_t>> dims;
  if (PyLong_CheckExact(in_dims.ptr())) {
    dims.assign(count, dim_of(in_dims));
    return dims;
  }
  if (!PyTuple_CheckExact(in_dims.ptr()) || py::len(in_dims) != count) {
    return std::nullopt;
  }
  dims.reserve(count);
  for (const auto& dim : py::reinterpret_borrow<py::tuple>(in_dims)) {
    if (dim.is_none()) {
      dims.emplace_back(std::nullopt);
    } else if (PyLong_CheckExact(dim.ptr())) {
      dims.emplace_back(dim_of(dim));
    } else {
      return std::nullopt;
    }
  }
  return dims;
}

// The mapped tensors of a call agree on the number of samples.
struct BatchSize {
  int64_t size = -1;
  std::vector<at::Tensor> deeper;  // those of planes that this thread isn't on

  bool agrees(const py::handle& leaf, int64_t in_dim) {
    if (!THPVariable_Check(leaf.ptr())) {
      return false;
    }
    const auto& tensor = THPVariable_Unpack(leaf.ptr());
    const auto dim = in_dim < 0 ? in_dim + tensor.dim() : in_dim;
    if (dim < 0 || dim >= tensor.dim() ||
        tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
      return false;
    }
    if (C10_UNLIKELY(depth_of(tensor) > depth_of(thread_state().plane))) {
      deeper.push_back(tensor);
    }
    const auto found = tensor.size(dim);
    if (size < 0) {
      size = found;
    }
    return found == size;
  }
};

// What can't be a container that pytrees would look into.
bool is_simple(const py::handle& leaf) {
  PyObject* object = leaf.ptr();
  return THPVariable_Check(object) || leaf.is_none() || PyLong_Check(object) ||
         PyFloat_Check(object) || PyUnicode_Check(object) || PyCallable_Check(object);
}

}  // namespace

py::object call_mapped(const py::object& func, const py::tuple& args, const py::dict& kwargs,
                       const py::tuple& dims, Randomness randomness, const py::object& finish) {
  const auto other_form = py::reinterpret_borrow<py::object>(Py_NotImplemented);
  const auto in_dims = dims_of_arguments(PyTuple_GET_ITEM(dims.ptr(), 0), args.size());
  const auto out_dim = dim_of(PyTuple_GET_ITEM(dims.ptr(), 1));
  if (!in_dims || records_before_dispatch()) {
    return other_form;
  }
  BatchSize batch;
  for (size_t i = 0; i < args.size(); ++i) {
    const auto& dim = (*in_dims)[i];
    const bool fits = all_leaves(args[i], [&](const py::handle& leaf) {
      return dim ? batch.agrees(leaf, *dim) : is_simple(leaf);
    });
    if (!fits) {
      return other_form;
    }
  }
  if (batch.size < 0) {
    return other_form;
  }

  const OnPlane plane(batch.deeper);
  const BatchFrame frame(batch.size, randomness, /*is_plane=*/true);
  const auto& level = frame.level();
  py::tuple wrapped(args.size());
  for (size_t i = 0; i < args.size(); ++i) {
    const auto& in_dim = (*in_dims)[i];
    wrapped[i] = changed_leaves(args[i], [&](const py::handle& leaf) {
      if (!in_dim) {
        return py::reinterpret_borrow<py::object>(leaf);
      }
      const auto& tensor = THPVariable_Unpack(leaf.ptr());
      return python_tensor(wrap(tensor, *in_dim < 0 ? *in_dim + tensor.dim() : *in_dim, *level));
    });
  }
  return noting_errors([&]() -> py::object {
    const auto output = called(func, wrapped, kwargs);
    const auto result = changed_leaves(output, [&](const py::handle& leaf) -> py::object {
      if (!THPVariable_Check(leaf.ptr())) {
        return {};
      }
      const auto& tensor = THPVariable_Unpack(leaf.ptr());
      const auto dim = out_dim < 0 ? out_dim + tensor.dim() + 1 : out_dim;
      return dim >= 0 && dim <= tensor.dim() ? python_tensor(stacked(tensor, dim, *level))
                                             : py::object();
    });
    return result ? result : finish(level, output);
  });
}

}  // namespace functorch_ext
