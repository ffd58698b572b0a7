#include "python/replaced_apply.h"

#include <c10/util/Exception.h>

#include "python/plain_application.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// There is one such function in the process. Its definition is what all bound methods share.
PyMethodDef* definition = nullptr;
PyCFunctionWithKeywords original = nullptr;
PyObject* replacement = nullptr;

PyObject* apply(PyObject* cls, PyObject* args, PyObject* kwargs) {
  if (is_plain_application(args, kwargs)) {
    return original(cls, args, kwargs);
  }
  const auto count = PyTuple_GET_SIZE(args);
  const auto all = py::reinterpret_steal<py::object>(PyTuple_New(count + 1));
  if (!all) {
    return nullptr;
  }
  PyTuple_SET_ITEM(all.ptr(), 0, Py_NewRef(cls));
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyTuple_SET_ITEM(all.ptr(), i + 1, Py_NewRef(PyTuple_GET_ITEM(args, i)));
  }
  return PyObject_Call(replacement, all.ptr(), kwargs);
}

PyObject* plain_apply(PyObject*, PyObject* all, PyObject* kwargs) {
  const auto args =
      py::reinterpret_steal<py::object>(PyTuple_GetSlice(all, 1, PyTuple_GET_SIZE(all)));
  return args ? original(PyTuple_GET_ITEM(all, 0), args.ptr(), kwargs) : nullptr;
}

PyCFunction as_function(PyCFunctionWithKeywords function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef plain_definition = {"plain_apply", as_function(&plain_apply),
                                METH_VARARGS | METH_KEYWORDS, nullptr};

void remember(const py::object& function) {
  if (definition) {
    return;
  }
  auto* found = PyCFunction_Check(function.ptr())
                    ? reinterpret_cast<PyCFunctionObject*>(function.ptr())->m_ml
                    : nullptr;
  TORCH_CHECK(found && found->ml_flags == (METH_VARARGS | METH_KEYWORDS | METH_CLASS),
              "functorch_ext: expected torch.autograd.Function.apply to be a builtin class method "
              "that takes keywords, but got ",
              py::repr(function).cast<std::string>());
  original =
      reinterpret_cast<PyCFunctionWithKeywords>(reinterpret_cast<void (*)()>(found->ml_meth));
  definition = found;
}

}  // namespace

void bind_replaced_apply(py::module_& module) {
  module.def("plain_apply", [](const py::object& function) {
    remember(function);
    return py::reinterpret_steal<py::object>(PyCFunction_New(&plain_definition, nullptr));
  });
  module.def("replace_apply", [](const py::object& function, const py::object& replaced_by) {
    remember(function);
    definition->ml_meth = as_function(original);
    Py_CLEAR(replacement);
    if (!replaced_by.is_none()) {
      replacement = py::object(replaced_by).release().ptr();
      definition->ml_meth = as_function(&apply);
    }
  });
}

}  // namespace functorch_ext
