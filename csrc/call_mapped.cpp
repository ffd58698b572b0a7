#include "call_mapped.h"

#include <torch/csrc/autograd/python_variable.h>

#include "engine/frames.h"

namespace py = pybind11;

namespace functorch_ext {

py::object call_mapped(const py::object& func, const py::tuple& args, const py::dict& kwargs,
                       int64_t in_dim, int64_t out_dim, Randomness randomness,
                       const py::object& finish) {
  const auto other_form = py::reinterpret_borrow<py::object>(Py_NotImplemented);
  if (args.empty()) {
    return other_form;
  }
  int64_t batch_size = -1;
  for (const auto arg : args) {
    if (!THPVariable_Check(arg.ptr())) {
      return other_form;
    }
    const auto& tensor = THPVariable_Unpack(arg.ptr());
    const auto dim = in_dim < 0 ? in_dim + tensor.dim() : in_dim;
    if (dim < 0 || dim >= tensor.dim() ||
        tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
      return other_form;
    }
    const auto size = tensor.size(dim);
    if (batch_size >= 0 && size != batch_size) {
      return other_form;
    }
    batch_size = size;
  }

  BatchFrame frame(batch_size, randomness, /*is_plane=*/true);
  py::tuple wrapped(args.size());
  for (size_t i = 0; i < args.size(); ++i) {
    const auto& tensor = THPVariable_Unpack(args[i].ptr());
    const auto dim = in_dim < 0 ? in_dim + tensor.dim() : in_dim;
    wrapped[i] = py::reinterpret_steal<py::object>(THPVariable_Wrap(frame.wrap(tensor, dim)));
  }
  auto output = py::reinterpret_steal<py::object>(
      PyObject_Call(func.ptr(), wrapped.ptr(), kwargs.empty() ? nullptr : kwargs.ptr()));
  if (!output) {
    throw py::error_already_set();
  }
  if (THPVariable_Check(output.ptr())) {
    const auto& tensor = THPVariable_Unpack(output.ptr());
    const auto dim = out_dim < 0 ? out_dim + tensor.dim() + 1 : out_dim;
    if (dim >= 0 && dim <= tensor.dim()) {
      return py::reinterpret_steal<py::object>(THPVariable_Wrap(frame.unwrap(tensor, dim)));
    }
  }
  return finish(py::cast(&frame, py::return_value_policy::reference), output);
}

}  // namespace functorch_ext
