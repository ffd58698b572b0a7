#include "makers.h"

#include <torch/csrc/autograd/python_variable.h>

#include <array>
#include <utility>

#include "engine/own_memory.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// The functions stay the objects that they are (programs and compilers know them by identity): only
// the C function behind each is replaced, by one that calls it and looks at the result. Operators
// can't be told apart from here on down: kernels call them too, and mustn't get wrappers.
constexpr size_t capacity = 40;
std::array<PyCFunctionWithKeywords, capacity> originals{};
std::array<bool, capacity> copies{};
size_t count = 0;

at::Tensor owned(const at::Tensor& tensor) {
  if (!tensor.requires_grad()) {
    return made_inside(tensor);
  }
  auto leaf = made_inside(tensor.detach());
  return is_wrapper(leaf) ? leaf.set_requires_grad(true) : tensor;
}

// A copy that is part of a graph stays in it, for hooks on it and for whoever asks whether it is.
at::Tensor owned_copy(const at::Tensor& tensor) {
  const bool has_memory = tensor.layout() == at::kStrided && !tensor.is_nested();
  return has_memory && !tensor.requires_grad() ? made_inside(tensor) : tensor;
}

PyObject* own_result(PyObject* result, bool is_copy) {
  if (!result || !thread_state().plane || !THPVariable_CheckExact(result)) {
    return result;
  }
  const auto made = py::reinterpret_steal<py::object>(result);
  try {
    const auto& tensor = THPVariable_Unpack(made.ptr());
    return THPVariable_Wrap(is_copy ? owned_copy(tensor) : owned(tensor));
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

template <size_t index>
PyObject* call(PyObject* self, PyObject* args, PyObject* kwargs) {
  return own_result(originals[index](self, args, kwargs), copies[index]);
}

template <size_t... index>
constexpr std::array<PyCFunctionWithKeywords, capacity> make_replacements(
    std::index_sequence<index...>) {
  return {&call<index>...};
}

constexpr auto replacements = make_replacements(std::make_index_sequence<capacity>());

// The definition behind a builtin function or a method of a builtin type.
PyMethodDef* definition_of(const py::object& function) {
  if (PyCFunction_Check(function.ptr())) {
    return reinterpret_cast<PyCFunctionObject*>(function.ptr())->m_ml;
  }
  if (Py_IS_TYPE(function.ptr(), &PyMethodDescr_Type)) {
    return reinterpret_cast<PyMethodDescrObject*>(function.ptr())->d_method;
  }
  return nullptr;
}

}  // namespace

void own_results_of(const py::object& function, bool is_copy) {
  auto* definition = definition_of(function);
  constexpr int with_keywords = METH_VARARGS | METH_KEYWORDS;
  TORCH_CHECK(definition && (definition->ml_flags & with_keywords) == with_keywords,
              "functorch_ext: not a builtin function that takes keywords: ",
              py::repr(function).cast<std::string>());
  TORCH_CHECK(count < capacity, "functorch_ext: too many functions that make tensors");
  copies[count] = is_copy;
  originals[count] =
      reinterpret_cast<PyCFunctionWithKeywords>(reinterpret_cast<void (*)()>(definition->ml_meth));
  definition->ml_meth =
      reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(replacements[count]));
  ++count;
}

}  // namespace functorch_ext
