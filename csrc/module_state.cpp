#include "module_state.h"

#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "python_objects.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// The tables of a module, found in its `__dict__`: attributes of a module are slow to look up.
class Tables {
 public:
  explicit Tables(const py::handle& module)
      : state_(py::reinterpret_steal<py::object>(PyObject_GenericGetDict(module.ptr(), nullptr))) {
    if (!state_) {
      throw py::error_already_set();
    }
  }

  // A plain dict; null if there is none of that name.
  py::handle find(const py::str& name) const {
    PyObject* table = PyDict_GetItem(state_.ptr(), name.ptr());
    return table && PyDict_CheckExact(table) ? table : nullptr;
  }

 private:
  py::object state_;
};

struct Names {
  const py::str parameters = intern("_parameters");
  const py::str buffers = intern("_buffers");
  const py::str modules = intern("_modules");

  static py::str intern(const char* name) {
    return py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name));
  }
};

const Names& names() {
  static const auto* const names = new Names();  // never freed: the interpreter may end first
  return *names;
}

// Adds what a table holds, but for None.
void collect(const py::handle& table, std::vector<PyObject*>& found) {
  PyObject *key = nullptr, *value = nullptr;
  for (Py_ssize_t position = 0; table && PyDict_Next(table.ptr(), &position, &key, &value);) {
    if (value != Py_None) {
      found.push_back(value);
    }
  }
}

// Is the module, or one inside it, of the class?
bool has_module_of(const py::handle& root, const py::handle& type) {
  std::vector<PyObject*> modules = {root.ptr()};
  for (size_t i = 0; i < modules.size(); ++i) {  // The list grows as we walk.
    if (py::isinstance(modules[i], type)) {
      return true;
    }
    collect(Tables(modules[i]).find(names().modules), modules);
  }
  return false;
}

// Does some tensor of the module lie in two places?
bool has_tied_tensors(const py::handle& root) {
  std::vector<PyObject*> modules = {root.ptr()};
  std::vector<PyObject*> tensors;
  for (size_t i = 0; i < modules.size(); ++i) {
    const Tables tables(modules[i]);
    collect(tables.find(names().parameters), tensors);
    collect(tables.find(names().buffers), tensors);
    collect(tables.find(names().modules), modules);
  }
  std::sort(tensors.begin(), tensors.end());
  return std::adjacent_find(tensors.begin(), tensors.end()) != tensors.end();
}

// Parameters and buffers of a module that others stand in for, until they are put back.
class Swap {
 public:
  // None, and nothing changed, if one of the values is no tensor or stands for anything else than
  // a parameter or a buffer in a plain table.
  static std::optional<Swap> of(const py::object& root, const py::dict& values) {
    std::optional<Swap> swap(std::in_place);
    swap->entries_.reserve(values.size());
    std::string_view owner_path;
    std::optional<Tables> owner(std::in_place, root);
    for (const auto& [key, value] : values) {
      if (!PyUnicode_CheckExact(key.ptr()) ||
          !(value.is_none() || THPVariable_Check(value.ptr()))) {
        return std::nullopt;
      }
      Py_ssize_t size = 0;
      const char* text = PyUnicode_AsUTF8AndSize(key.ptr(), &size);
      if (!text) {
        throw py::error_already_set();
      }
      const std::string_view full(text, size);
      const auto dot = full.rfind('.');
      const auto path = dot == full.npos ? std::string_view() : full.substr(0, dot);
      if (path != owner_path) {  // Names come grouped by module: mostly it is the one before.
        owner = submodule(root, path);
        owner_path = path;
        if (!owner) {
          return std::nullopt;
        }
      }
      const auto name = py::str(full.data() + (dot == full.npos ? 0 : dot + 1),
                                dot == full.npos ? full.size() : full.size() - dot - 1);
      auto table = owner->find(names().parameters);
      if (!table || !PyDict_Contains(table.ptr(), name.ptr())) {
        table = owner->find(names().buffers);
      }
      PyObject* before = table ? PyDict_GetItem(table.ptr(), name.ptr()) : nullptr;
      if (!before) {
        return std::nullopt;
      }
      swap->entries_.push_back({py::reinterpret_borrow<py::dict>(table), name,
                                py::reinterpret_borrow<py::object>(before),
                                py::reinterpret_borrow<py::object>(key),
                                py::reinterpret_borrow<py::object>(value)});
    }
    for (const auto& entry : swap->entries_) {
      entry.table[entry.name] = entry.value;
    }
    return swap;
  }

  // Puts the module's own back, and hands tensors that it assigned meanwhile to `given`.
  void undo(const py::dict& given) {
    for (const auto& entry : entries_) {
      PyObject* after = PyDict_GetItem(entry.table.ptr(), entry.name.ptr());
      if (after && after != entry.value.ptr() && THPVariable_Check(after) &&
          PyDict_Contains(given.ptr(), entry.key.ptr()) == 1) {
        given[entry.key] = py::reinterpret_borrow<py::object>(after);
      }
    }
    for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
      entry->table[entry->name] = entry->before;
    }
    entries_.clear();
  }

 private:
  struct Entry {
    py::dict table;
    py::str name;
    py::object before;
    py::object key;
    py::object value;
  };

  static std::optional<Tables> submodule(const py::handle& root, std::string_view path) {
    py::handle module = root;
    while (!path.empty()) {
      const auto dot = path.find('.');
      const auto name = py::str(path.data(), std::min(dot, path.size()));
      const auto children = Tables(module).find(names().modules);
      PyObject* child = children ? PyDict_GetItem(children.ptr(), name.ptr()) : nullptr;
      if (!child || child == Py_None) {
        return std::nullopt;
      }
      module = child;
      path = dot == path.npos ? std::string_view() : path.substr(dot + 1);
    }
    return Tables(module);
  }

  std::vector<Entry> entries_;
};

// The result of module(*args, **kwargs) with other parameters and buffers, in a tuple; None if they
// can't be put in place of the module's own this way. What the module assigns goes to `given`.
std::optional<py::tuple> call_with_state(const py::object& root, const py::dict& values,
                                         const py::dict& given, const py::tuple& args,
                                         const py::dict& kwargs) {
  auto swap = Swap::of(root, values);
  if (!swap) {
    return std::nullopt;
  }
  try {
    const auto result = called(root, args, kwargs);
    swap->undo(given);
    return py::make_tuple(result);
  } catch (...) {
    swap->undo(given);  // Once more does nothing.
    throw;
  }
}

}  // namespace

void bind_module_state(py::module_& module) {
  module.def("call_with_state", &call_with_state);
  module.def("has_module_of", &has_module_of);
  module.def("has_tied_tensors", &has_tied_tensors);
}

}  // namespace functorch_ext
