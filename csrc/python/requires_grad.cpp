#include "python/requires_grad.h"

#include <torch/csrc/autograd/python_variable.h>

#include "engine/wrapper.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

getter plain_getter = nullptr;

bool requires_grad_below(const at::Tensor& tensor) {
  if (!is_wrapper(tensor)) {
    return false;
  }
  const auto& value = wrapper_of(tensor)->value();
  return value.requires_grad() || requires_grad_below(value);
}

PyObject* requires_grad(PyObject* self, void* closure) {
  PyObject* here = plain_getter(self, closure);
  if (here != Py_False || !requires_grad_below(THPVariable_Unpack(self))) {
    return here;
  }
  Py_DECREF(here);
  Py_RETURN_TRUE;
}

}  // namespace

void replace_requires_grad(const py::object& descriptor, bool on) {
  TORCH_CHECK(
      Py_IS_TYPE(descriptor.ptr(), &PyGetSetDescr_Type),
      "functorch_ext: expected torch.Tensor.requires_grad to be an attribute in C, but got ",
      py::repr(descriptor).cast<std::string>());
  auto* definition = reinterpret_cast<PyGetSetDescrObject*>(descriptor.ptr())->d_getset;
  if (!plain_getter) {
    plain_getter = definition->get;
  }
  definition->get = on ? &requires_grad : plain_getter;
}

}  // namespace functorch_ext
