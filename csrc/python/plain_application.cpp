#include "python/plain_application.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/autograd/python_variable.h>

#include "engine/torch_func.h"
#include "engine/wrapper.h"
#include "python/switch.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// Neither of a level, nor torch.func's, nor with a tangent, nor of a class of its own.
bool is_plain_argument(PyObject* argument) {
  if (!THPVariable_Check(argument)) {
    return true;
  }
  const auto& tensor = THPVariable_Unpack(argument);
  return THPVariable_CheckExact(argument) && !is_wrapper(tensor) &&
         !tensor.key_set().has_any(torch_func_wrappers) && !tensor._fw_grad(/*level=*/0).defined();
}

bool is_empty(PyObject* kwargs) {
  return !kwargs || kwargs == Py_None || PyDict_GET_SIZE(kwargs) == 0;
}

PyObject* plain_application(PyObject*, PyObject* const* args, Py_ssize_t) {
  return Py_NewRef(is_plain_application(args[0], args[1]) ? Py_True : Py_False);
}

PyMethodDef definition_of_question = {
    "is_plain_application",
    reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&plain_application)), METH_FASTCALL,
    nullptr};

}  // namespace

bool is_plain_application(PyObject* args, PyObject* kwargs) {
  if (is_idle()) {
    return true;
  }
  if (!is_empty(kwargs) || thread_state().innermost || running_layers() > 0 ||
      at::impl::PythonTorchFunctionTLS::stack_len() > 0) {
    return false;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); ++i) {
    if (!is_plain_argument(PyTuple_GET_ITEM(args, i))) {
      return false;
    }
  }
  return true;
}

void bind_plain_application(py::module_& module) {
  module.attr("is_plain_application") =
      py::reinterpret_steal<py::object>(PyCFunction_New(&definition_of_question, nullptr));
}

}  // namespace functorch_ext
