#include "python/makers.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/own_memory.h"
#include "engine/thread_state.h"
#include "python/switch.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// The functions stay the objects that they are (programs and compilers know them by identity): only
// the C function behind each is replaced, by one that calls it and looks at the result. Operators
// can't be told apart from here on down: kernels call them too, and mustn't get wrappers.
constexpr size_t capacity = 96;
std::array<PyCFunction, capacity> originals{};
std::array<BuiltinRole, capacity> roles{};
std::array<PyObject*, capacity> of_elements_functions{};
std::array<bool, capacity> elements_come_first{};
std::array<PyMethodDef*, capacity> definitions{};
size_t count = 0;

// The subclasses that stand for plain tensors while a program is traced.
std::vector<PyTypeObject*> types_of_fakes;

bool stands_for_plain_tensors(PyTypeObject* type) {
  return std::find(types_of_fakes.begin(), types_of_fakes.end(), type) != types_of_fakes.end();
}

bool has_memory(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_nested();
}

at::Tensor owned(const at::Tensor& tensor) {
  if (!has_memory(tensor)) {
    return tensor;
  }
  if (!tensor.requires_grad()) {
    return made_inside(tensor);
  }
  auto leaf = made_inside(tensor.detach());
  return is_wrapper(leaf) ? leaf.set_requires_grad(true) : tensor;
}

// Does nobody else know the tensor, nor its memory?
bool is_new(const py::object& made) {
  if (Py_REFCNT(made.ptr()) != 1 || !THPVariable_CheckExact(made.ptr())) {
    return false;
  }
  const auto& tensor = THPVariable_Unpack(made.ptr());
  if (is_wrapper(tensor) || !tensor.has_storage()) {
    return false;
  }
  const auto& storage = tensor.storage();
  return storage.use_count() == 1 && storage.allocator();  // else the memory of a NumPy array, say
}

// A copy that is part of a graph stays in it, for hooks on it and for whoever asks whether it is.
at::Tensor owned_copy(const at::Tensor& tensor) {
  return has_memory(tensor) && !tensor.requires_grad() ? made_inside(tensor) : tensor;
}

// PyTorch's own code makes tensors with dispatch in Python switched off, such as the fake tensor
// that stands for a real one: no program sees those.
bool is_in_transform() {
  return static_cast<bool>(thread_state().innermost) &&
         !c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::Python);
}

py::object own_result(py::object made, BuiltinRole role) {
  if (!THPVariable_CheckExact(made.ptr()) && !stands_for_plain_tensors(Py_TYPE(made.ptr()))) {
    return made;
  }
  const auto& tensor = THPVariable_Unpack(made.ptr());
  const auto own = role == BuiltinRole::Makes ? owned(tensor) : owned_copy(tensor);
  return own.is_same(tensor) ? made : py::reinterpret_steal<py::object>(THPVariable_Wrap(own));
}

// The tensor that a method or a function was called with.
PyObject* tensor_given(PyObject* self, PyObject* args) {
  if (self && THPVariable_Check(self)) {
    return self;
  }
  PyObject* first = args && PyTuple_Check(args) && PyTuple_GET_SIZE(args) > 0
                        ? PyTuple_GET_ITEM(args, 0)
                        : nullptr;
  return first && THPVariable_Check(first) ? first : nullptr;
}

// Calls a function of a tensor's memory. Says why it failed, where the tensor has none.
template <class Call>
PyObject* explained(const Call& call, PyObject* self, PyObject* args) {
  const auto refusals = thread_state().memory_refusals;
  PyObject* result = call();
  if (!result && thread_state().memory_refusals > refusals) {
    PyObject* tensor = tensor_given(self, args);
    if (tensor && is_wrapper(THPVariable_Unpack(tensor))) {
      PyErr_SetString(PyExc_RuntimeError,
                      wrapper_of(THPVariable_Unpack(tensor))->no_storage_message());
    }
  }
  return result;
}

PyObject* watched(PyObject* result, PyObject* self, PyObject* args, BuiltinRole role) {
  if (!result || role == BuiltinRole::Reads || !is_in_transform()) {
    return result;
  }
  auto given = py::reinterpret_steal<py::object>(result);
  try {
    if (role == BuiltinRole::Computes) {
      return (is_new(given) ? own_result(std::move(given), role) : given).release().ptr();
    }
    if (role == BuiltinRole::Makes || role == BuiltinRole::Copies) {
      return own_result(std::move(given), role).release().ptr();
    }
    if (PyObject* tensor = tensor_given(self, args)) {
      hand_out(THPVariable_Unpack(tensor),
               role == BuiltinRole::HandsOut ? HandedOut::Shared : HandedOut::Pointer);
    }
    return given.release().ptr();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
    return nullptr;
  }
}

// The function failed: it may have been given elements that are tensors of a transform.
PyObject* made_of_elements(PyObject* of_elements, PyObject* args, PyObject* kwargs) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  PyErr_Fetch(&type, &value, &traceback);
  PyObject* result = PyObject_Call(of_elements, args, kwargs);
  if (result != Py_NotImplemented) {
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return result;
  }
  Py_DECREF(result);
  PyErr_Restore(type, value, traceback);
  return nullptr;
}

template <class Function>
Function function_of(PyCFunction function) {
  return reinterpret_cast<Function>(reinterpret_cast<void (*)()>(function));
}

template <size_t index>
PyObject* call(PyObject* self, PyObject* args, PyObject* kwargs) {
  const auto original = function_of<PyCFunctionWithKeywords>(originals[index]);
  if (C10_LIKELY(is_idle())) {
    return original(self, args, kwargs);
  }
  if (elements_come_first[index]) {
    PyObject* made = PyObject_Call(of_elements_functions[index], args, kwargs);
    if (made != Py_NotImplemented) {
      return made;
    }
    Py_DECREF(made);
  }
  PyObject* result = explained([&] { return original(self, args, kwargs); }, self, args);
  if (!result && of_elements_functions[index] && is_in_transform()) {
    return made_of_elements(of_elements_functions[index], args, kwargs);
  }
  return watched(result, self, args, roles[index]);
}

template <size_t index>
PyObject* call_without_arguments(PyObject* self, PyObject* none) {
  if (C10_LIKELY(is_idle())) {
    return originals[index](self, none);
  }
  PyObject* result = explained([&] { return originals[index](self, none); }, self, nullptr);
  return watched(result, self, nullptr, roles[index]);
}

template <size_t... index>
constexpr std::array<PyCFunctionWithKeywords, capacity> make_replacements(
    std::index_sequence<index...>) {
  return {&call<index>...};
}
template <size_t... index>
constexpr std::array<PyCFunction, capacity> make_replacements_without_arguments(
    std::index_sequence<index...>) {
  return {&call_without_arguments<index>...};
}

constexpr auto replacements = make_replacements(std::make_index_sequence<capacity>());
constexpr auto replacements_without_arguments =
    make_replacements_without_arguments(std::make_index_sequence<capacity>());

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

size_t watch_builtin(const py::object& function, BuiltinRole role, const py::object& of_elements) {
  auto* definition = definition_of(function);
  constexpr int with_keywords = METH_VARARGS | METH_KEYWORDS;
  const int flags = definition ? definition->ml_flags : 0;
  const bool takes_keywords = (flags & with_keywords) == with_keywords;
  TORCH_CHECK(takes_keywords || (flags & METH_NOARGS),
              "functorch_ext: not a builtin function that takes keywords or nothing: ",
              py::repr(function).cast<std::string>());
  TORCH_CHECK(count < capacity, "functorch_ext: too many builtin functions to watch");
  elements_come_first[count] = role == BuiltinRole::MakesBetween;
  roles[count] = elements_come_first[count] ? BuiltinRole::Makes : role;
  of_elements_functions[count] =
      of_elements.is_none() ? nullptr : py::object(of_elements).release().ptr();
  originals[count] = definition->ml_meth;
  definitions[count] = definition;
  set_watched(count, true);
  return count++;
}

void set_watched(size_t index, bool on) {
  auto* definition = definitions.at(index);
  if (!on) {
    definition->ml_meth = originals[index];
  } else if (definition->ml_flags & METH_KEYWORDS) {
    definition->ml_meth =
        reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(replacements[index]));
  } else {
    definition->ml_meth = replacements_without_arguments[index];
  }
}

void add_type_of_fakes(const py::type& type) {
  types_of_fakes.push_back(reinterpret_cast<PyTypeObject*>(py::type(type).release().ptr()));
}

py::object own_tensor(const py::object& tensor) {
  return is_in_transform() ? own_result(tensor, BuiltinRole::Makes) : tensor;
}

}  // namespace functorch_ext
