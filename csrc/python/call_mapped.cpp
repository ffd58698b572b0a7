#include "python/call_mapped.h"

#include <c10/util/SmallVector.h>

#include <limits>
#include <optional>
#include <vector>

#include "autodiff/plane.h"
#include "engine/frames.h"
#include "python/bound_calls.h"
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

// What is bound in a mapped function.
struct Mapped {
  explicit Mapped(const py::tuple& bound)
      : func(bound_part(bound, 0)),
        in_dims(bound_part(bound, 1)),
        out_dim(dim_of(bound_part(bound, 2))),
        randomness(static_cast<Randomness>(PyLong_AsLong(bound_part(bound, 3).ptr()))),
        finish(bound_part(bound, 4)),
        otherwise(bound_part(bound, 5)) {}

  const py::handle func;
  const py::handle in_dims;
  const int64_t out_dim;
  const Randomness randomness;
  const py::handle finish;
  const py::handle otherwise;
};

// An int, or a tuple of ints and of None, one per argument.
bool are_plain_dims(const py::handle& in_dims) {
  if (!PyTuple_CheckExact(in_dims.ptr())) {
    return PyLong_CheckExact(in_dims.ptr());
  }
  for (const auto& dim : py::reinterpret_borrow<py::tuple>(in_dims)) {
    if (!dim.is_none() && !PyLong_CheckExact(dim.ptr())) {
      return false;
    }
  }
  return true;
}

// The dimension that an argument is mapped over, or none.
std::optional<int64_t> dim_of_argument(const py::handle& in_dims, size_t index) {
  const py::handle dim = PyTuple_CheckExact(in_dims.ptr())
                             ? py::handle(PyTuple_GET_ITEM(in_dims.ptr(), index))
                             : in_dims;
  return dim.is_none() ? std::nullopt : std::optional(dim_of(dim));
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
    if (C10_UNLIKELY(is_wrapper(tensor)) && depth_of(tensor) > depth_of(thread_state().plane)) {
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

// The arguments to call the function with.
class Wrapped {
 public:
  Wrapped(const py::tuple& args, const py::handle& in_dims, int64_t size, const Level& level) {
    arguments_.reserve(args.size());
    for (size_t i = 0; i < args.size(); ++i) {
      const auto in_dim = dim_of_argument(in_dims, i);
      const py::handle argument = PyTuple_GET_ITEM(args.ptr(), i);
      BatchSize batch;
      batch.size = size;
      auto wrapped = changed_leaves(argument, [&](const py::handle& leaf) {
        if (!in_dim) {
          return py::reinterpret_borrow<py::object>(leaf);
        }
        if (!leaf.is(argument) && !batch.agrees(leaf, *in_dim)) {
          return py::object();
        }
        const auto& tensor = THPVariable_Unpack(leaf.ptr());
        return python_tensor(wrap(tensor, *in_dim < 0 ? *in_dim + tensor.dim() : *in_dim, level));
      });
      if (!wrapped) {
        refuse_changed_tree();
      }
      arguments_.push_back(std::move(wrapped));
    }
  }
  // Nobody else holds an argument that dies here. What it stands for is let go while this thread
  // has Python's lock, which a tensor lets go of before it dies: taking it back takes long.
  ~Wrapped() {
    for (const auto& argument : arguments_) {
      if (Py_REFCNT(argument.ptr()) == 1 && THPVariable_Check(argument.ptr())) {
        const auto& tensor = THPVariable_Unpack(argument.ptr());
        if (is_wrapper(tensor) && tensor.use_count() == 1) {
          wrapper_of(tensor)->let_go();
        }
      }
    }
  }
  Wrapped(const Wrapped&) = delete;
  Wrapped& operator=(const Wrapped&) = delete;

  py::object passed_to(const py::handle& func, const py::dict& kwargs) const {
    static_assert(sizeof(py::object) == sizeof(PyObject*));
    const auto* arguments = reinterpret_cast<PyObject* const*>(arguments_.data());
    const auto count = arguments_.size();
    auto result = py::reinterpret_steal<py::object>(
        kwargs.empty() ? PyObject_Vectorcall(func.ptr(), arguments, count, nullptr)
                       : PyObject_VectorcallDict(func.ptr(), arguments, count, kwargs.ptr()));
    if (!result) {
      throw py::error_already_set();
    }
    return result;
  }

 private:
  c10::SmallVector<py::object, 8> arguments_;
};

// Calls the function and stacks what it returns.
py::object call_on_samples(const Mapped& mapped, const py::tuple& args, const py::dict& kwargs,
                           int64_t batch_size) {
  const BatchFrame frame(batch_size, mapped.randomness, /*is_plane=*/true);
  const auto& level = frame.level();
  const Wrapped wrapped(args, mapped.in_dims, batch_size, *level);
  return noting_errors([&]() -> py::object {
    const auto output = wrapped.passed_to(mapped.func, kwargs);
    const auto result = changed_leaves(output, [&](const py::handle& leaf) -> py::object {
      if (!THPVariable_Check(leaf.ptr())) {
        return {};
      }
      const auto& tensor = THPVariable_Unpack(leaf.ptr());
      const auto dim = mapped.out_dim < 0 ? mapped.out_dim + tensor.dim() + 1 : mapped.out_dim;
      return dim >= 0 && dim <= tensor.dim() ? python_tensor(stacked(tensor, dim, *level))
                                             : py::object();
    });
    return result ? result : mapped.finish(level, output);
  });
}

py::object call_mapped(const py::tuple& bound, const py::tuple& args, const py::dict& kwargs) {
  const Mapped mapped(bound);
  BatchSize batch;
  bool fits = !PyTuple_CheckExact(mapped.in_dims.ptr()) || py::len(mapped.in_dims) == args.size();
  for (size_t i = 0; fits && i < args.size(); ++i) {
    const auto in_dim = dim_of_argument(mapped.in_dims, i);
    fits = all_leaves(args[i], [&](const py::handle& leaf) {
      return in_dim ? batch.agrees(leaf, *in_dim) : is_simple(leaf);
    });
  }
  if (!fits || batch.size < 0 || records_before_dispatch()) {
    return mapped.otherwise(args, kwargs);
  }
  if (C10_LIKELY(batch.deeper.empty())) {
    return call_on_samples(mapped, args, kwargs, batch.size);
  }
  const OnPlane plane(batch.deeper);
  return call_on_samples(mapped, args, kwargs, batch.size);
}

}  // namespace

py::object mapped_call(const py::object& func, const py::object& in_dims, int64_t out_dim,
                       Randomness randomness, const py::object& finish,
                       const py::object& otherwise) {
  if (!are_plain_dims(in_dims)) {
    return otherwise;
  }
  return bound_call<&call_mapped>(
      py::make_tuple(func, in_dims, out_dim, static_cast<int>(randomness), finish, otherwise));
}

}  // namespace functorch_ext
