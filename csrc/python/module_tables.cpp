#include "python/module_tables.h"

#include <algorithm>

namespace py = pybind11;

namespace functorch_ext {

namespace {

struct Names {
  const py::str parameters = intern("_parameters");
  const py::str buffers = intern("_buffers");
  const py::str modules = intern("_modules");
  const std::array<py::str, 2> lists = {intern("_flat_weights"), intern("_flat_weight_refs")};

  static py::str intern(const char* name) {
    return py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name));
  }
};

const Names& names() {
  static const auto* const names = new Names();  // never freed: the interpreter may end first
  return *names;
}

}  // namespace

Tables::Tables(const py::handle& module)
    : state_(py::reinterpret_steal<py::object>(PyObject_GenericGetDict(module.ptr(), nullptr))) {
  if (!state_) {
    throw py::error_already_set();
  }
}

py::handle Tables::find(const py::str& name) const {
  PyObject* table = PyDict_GetItem(state_.ptr(), name.ptr());
  return table && PyDict_Check(table) ? table : nullptr;
}

py::handle Tables::parameters() const {
  return find(names().parameters);
}

py::handle Tables::buffers() const {
  return find(names().buffers);
}

py::handle Tables::modules() const {
  return find(names().modules);
}

const std::array<py::str, 2>& Tables::names_of_lists() {
  return names().lists;
}

py::handle Tables::list_of_weights(const py::str& name) const {
  return PyDict_GetItem(state_.ptr(), name.ptr());
}

py::handle Tables::table_of(const py::str& name) const {
  for (const auto& table : {parameters(), buffers()}) {
    if (table && PyDict_Contains(table.ptr(), name.ptr()) == 1) {
      return table;
    }
  }
  return nullptr;
}

py::handle submodule(const py::handle& root, std::string_view path) {
  py::handle module = root;
  while (module && !path.empty()) {
    const auto dot = path.find('.');
    const auto name = py::str(path.data(), std::min(dot, path.size()));
    const auto children = Tables(module).modules();
    PyObject* child = children ? PyDict_GetItem(children.ptr(), name.ptr()) : nullptr;
    module = child == Py_None ? nullptr : child;
    path = dot == path.npos ? std::string_view() : path.substr(dot + 1);
  }
  return module;
}

}  // namespace functorch_ext
