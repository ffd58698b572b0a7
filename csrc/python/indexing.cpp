// Indexing from Python. PyTorch reads an index without dimensions as a number, x[i] as x[int(i)],
// which there is none of where samples differ. So such an index is given a dimension, in such a way
// that the result is laid out as that of a number: x[i, :, rows] has the dimensions of x[1, :,
// rows].
#include "python/indexing.h"

#include <ATen/ops/index.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <vector>

#include "batching/single_masks.h"
#include "python/objects.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

binaryfunc plain_getitem = nullptr;
objobjargproc plain_setitem = nullptr;

// May the numbers of a tensor differ between samples, ours or torch.func's?
bool may_differ(const at::Tensor& tensor) {
  if (!is_wrapper(tensor)) {
    return tensor.key_set().has_any(torch_func_wrappers);
  }
  return wrapper_of(tensor)->is_batched() || may_differ(wrapper_of(tensor)->value());
}

bool is_tensor(PyObject* object) {
  return PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

// One of ours without dimensions: a number or a mask.
bool is_batched_number(PyObject* object) {
  if (!is_tensor(object)) {
    return false;
  }
  const auto& tensor = THPVariable_Unpack(object);
  return C10_UNLIKELY(is_wrapper(tensor)) && tensor.dim() == 0 &&
         at::isIntegralType(tensor.scalar_type(), /*includeBool=*/true) && may_differ(tensor);
}

bool mentions_batched_number(PyObject* index) {
  if (!PyTuple_Check(index)) {
    return is_batched_number(index);
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(index); ++i) {
    if (is_batched_number(PyTuple_GET_ITEM(index, i))) {
      return true;
    }
  }
  return false;
}

struct Item {
  explicit Item(py::object index_) : index(std::move(index_)) {
    PyObject* object = index.ptr();
    number = is_batched_number(object) && !is_mask(tensor());
    if (PyList_Check(object)) {
      index = py::module_::import("torch").attr("tensor")(index);
      object = index.ptr();
    }
    if (is_tensor(object)) {
      covers = is_mask(tensor()) ? tensor().dim() : 1;
      // PyTorch reads others without dimensions.
      advanced = !number && (tensor().dim() > 0 || is_batched_number(object));
    } else if (object == Py_True || object == Py_False) {
      advanced = true;
    } else if (object == Py_Ellipsis) {
      ellipsis = true;
    } else if (object != Py_None) {
      covers = 1;
    }
  }
  const at::Tensor& tensor() const {
    return THPVariable_Unpack(index.ptr());
  }

  py::object index;
  int64_t covers = 0;     // how many dimensions of what is indexed
  bool ellipsis = false;  // the rest of them
  bool number = false;    // differs between samples
  bool advanced = false;  // a tensor of indices, or a mask
};

// What is indexed, and an index that PyTorch doesn't read.
class Indexed {
 public:
  Indexed(at::Tensor self, const py::object& index) : self_(std::move(self)) {
    if (PyTuple_Check(index.ptr())) {
      for (const auto& item : py::reinterpret_borrow<py::tuple>(index)) {
        items_.emplace_back(py::reinterpret_borrow<py::object>(item));
      }
    } else {
      items_.emplace_back(index);
    }
    int64_t covered = 0;
    for (const auto& item : items_) {
      covered += item.covers;
      ellipses_ += item.ellipsis ? 1 : 0;
    }
    rest_ = self_.dim() - covered;
    if (fits()) {
      give_masks_dimensions();
      bring_numbers_together();
    }
  }

  // Else PyTorch says what is wrong.
  bool fits() const {
    return rest_ >= 0 && ellipses_ <= 1;
  }
  // One dimension of size 1 is in front of the result: that of the numbers alone.
  bool has_extra_dim() const {
    return !has_advanced_ && has_numbers_;
  }
  py::object self() const {
    return python_tensor(self_);
  }
  py::tuple index() const {
    py::tuple result(items_.size());
    for (size_t i = 0; i < items_.size(); ++i) {
      result[i] = items_[i].index;
    }
    return result;
  }

 private:
  // x[mask] as x[None][mask[None]].
  void give_masks_dimensions() {
    int64_t dim = 0;
    for (auto& item : items_) {
      if (item.advanced && is_batched_number(item.index.ptr())) {
        // The program may write to the mask while a graph keeps the index.
        item.index = python_tensor(item.tensor().unsqueeze(0).clone());
        item.covers = 1;
        self_ = self_.unsqueeze(dim);
      }
      dim += item.ellipsis ? rest_ : item.covers;
    }
  }

  // The numbers' dimensions in front of that of the first advanced index, as one group with it; or
  // in front of all.
  void bring_numbers_together() {
    std::vector<int64_t> dims;  // of the numbers
    std::vector<Item> numbers;
    std::vector<Item> others;
    int64_t dim = 0;
    int64_t first_dim = 0;
    size_t first = 0;
    for (auto& item : items_) {
      const auto covers = item.ellipsis ? rest_ : item.covers;
      if (item.number) {
        dims.push_back(dim);
        item.index = python_tensor(item.tensor().unsqueeze(0));
        numbers.push_back(std::move(item));
      } else {
        if (item.advanced && !has_advanced_) {
          has_advanced_ = true;
          first = others.size();
          first_dim = dim;
        }
        others.push_back(std::move(item));
      }
      dim += covers;
    }
    has_numbers_ = !numbers.empty();
    std::vector<int64_t> order;
    for (int64_t each = 0; each <= self_.dim(); ++each) {
      if (each == first_dim) {
        order.insert(order.end(), dims.begin(), dims.end());
      }
      if (each < self_.dim() && std::find(dims.begin(), dims.end(), each) == dims.end()) {
        order.push_back(each);
      }
    }
    if (has_numbers_ && !std::is_sorted(order.begin(), order.end())) {
      self_ = self_.permute(order);
    }
    others.insert(others.begin() + static_cast<int64_t>(first), numbers.begin(), numbers.end());
    items_ = std::move(others);
  }

  at::Tensor self_;
  std::vector<Item> items_;
  int64_t rest_ = 0;  // the dimensions that an ellipsis, or what isn't there, stands for
  int64_t ellipses_ = 0;
  bool has_numbers_ = false;
  bool has_advanced_ = false;
};

// Subclasses and modes of the program's are asked first.
bool is_overridden(PyObject* self, PyObject* index, PyObject* value) {
  const auto given =
      py::make_tuple(py::handle(self), value ? py::handle(value) : py::handle(Py_None));
  const auto indices = PyTuple_Check(index) ? py::reinterpret_borrow<py::tuple>(index)
                                            : py::make_tuple(py::handle(index));
  const auto all = py::reinterpret_steal<py::tuple>(PySequence_Concat(given.ptr(), indices.ptr()));
  return py::module_::import("torch").attr("_C").attr("_has_torch_function")(all).cast<bool>();
}

PyObject* getitem(PyObject* self, PyObject* index) {
  if (C10_LIKELY(!mentions_batched_number(index))) {
    return plain_getitem(self, index);
  }
  HANDLE_TH_ERRORS
  if (is_overridden(self, index, nullptr)) {
    return plain_getitem(self, index);
  }
  const auto& tensor = THPVariable_Unpack(self);
  if (!PyTuple_Check(index) && tensor.dim() > 0 && !is_mask(THPVariable_Unpack(index))) {
    const auto number = THPVariable_Unpack(index);
    const py::gil_scoped_release no_gil;
    const auto result = at::index(tensor, {number});
    const py::gil_scoped_acquire gil;
    return THPVariable_Wrap(result);
  }
  const Indexed indexed(tensor, py::reinterpret_borrow<py::object>(index));
  if (!indexed.fits()) {
    return plain_getitem(self, index);
  }
  auto result =
      py::reinterpret_steal<py::object>(plain_getitem(indexed.self().ptr(), indexed.index().ptr()));
  if (!result) {
    return nullptr;
  }
  return indexed.has_extra_dim() ? THPVariable_Wrap(THPVariable_Unpack(result.ptr()).squeeze(0))
                                 : result.release().ptr();
  END_HANDLE_TH_ERRORS
}

int setitem(PyObject* self, PyObject* index, PyObject* value) {
  if (C10_LIKELY(!mentions_batched_number(index)) || !value) {
    return plain_setitem(self, index, value);
  }
  HANDLE_TH_ERRORS
  if (is_overridden(self, index, value)) {
    return plain_setitem(self, index, value);
  }
  const Indexed indexed(THPVariable_Unpack(self), py::reinterpret_borrow<py::object>(index));
  return indexed.fits() ? plain_setitem(indexed.self().ptr(), indexed.index().ptr(), value)
                        : plain_setitem(self, index, value);
  END_HANDLE_TH_ERRORS_RET(-1)
}

}  // namespace

py::dict indexing_methods(const py::object& tensor_class) {
  auto* type = reinterpret_cast<PyTypeObject*>(tensor_class.ptr());
  plain_getitem = type->tp_as_mapping->mp_subscript;
  plain_setitem = type->tp_as_mapping->mp_ass_subscript;
  // As PyTorch's own descriptors are, of which classes make slots that are called directly.
  py::dict methods;
  const auto add = [&](const char* name, void* function) {
    const py::object descriptor = tensor_class.attr(name);
    TORCH_CHECK(Py_IS_TYPE(descriptor.ptr(), &PyWrapperDescr_Type), "functorch_ext: torch.Tensor.",
                name, " isn't PyTorch's any more");
    auto* base = reinterpret_cast<PyWrapperDescrObject*>(descriptor.ptr())->d_base;
    methods[name] = py::reinterpret_steal<py::object>(PyDescr_NewWrapper(type, base, function));
  };
  add("__getitem__", reinterpret_cast<void*>(&getitem));
  add("__setitem__", reinterpret_cast<void*>(&setitem));
  add("__delitem__", reinterpret_cast<void*>(&setitem));
  return methods;
}

}  // namespace functorch_ext
