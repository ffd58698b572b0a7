#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <string>
#include <string_view>

namespace functorch_ext {

// The tables in which a module keeps its parameters, buffers and submodules, found in its
// `__dict__`: attributes of a module are slow to look up.
class Tables {
 public:
  explicit Tables(const pybind11::handle& module);

  // The `__dict__` itself.
  pybind11::handle state() const {
    return state_;
  }
  // Dicts; null if there is none.
  pybind11::handle parameters() const;
  pybind11::handle buffers() const;
  pybind11::handle modules() const;
  // Lists in which a recurrent layer keeps its weights, and weak references to them, once more.
  static const std::array<pybind11::str, 2>& names_of_lists();
  // Null if there is none of that name.
  pybind11::handle list_of_weights(const pybind11::str& name) const;

  // The table that has a parameter or buffer of that name; null if none has.
  pybind11::handle table_of(const pybind11::str& name) const;

 private:
  pybind11::handle find(const pybind11::str& name) const;

  pybind11::object state_;
};

// Visits what a table holds, but for None: visit(name, value) until it is true; tells whether it
// was.
template <class Visit>
bool any_entry(const pybind11::handle& table, Visit&& visit) {
  PyObject *name = nullptr, *value = nullptr;
  for (Py_ssize_t position = 0; table && PyDict_Next(table.ptr(), &position, &name, &value);) {
    if (value != Py_None && visit(pybind11::handle(name), pybind11::handle(value))) {
      return true;
    }
  }
  return false;
}

// How a walk through modules came to one of them.
struct ModulePath {
  pybind11::handle module;
  pybind11::handle name = {};  // of the module in the outer one; null for the root
  const ModulePath* outer = nullptr;

  bool contains(const pybind11::handle& other) const {
    return module.is(other) || (outer && outer->contains(other));
  }
  // The name of something in this module as the root knows it.
  std::string name_of(const pybind11::handle& entry) const {
    const auto full = entry.cast<std::string>();
    return outer ? outer->name_of(name) + "." + full : full;
  }
};

// Visits a module and all inside it, each as often as it has names, until visit(path, tables) is
// true; tells whether it was. A module that contains itself isn't entered from within.
template <class Visit>
bool any_module(const ModulePath& path, Visit&& visit) {
  const Tables tables(path.module);
  return visit(path, tables) || any_entry(tables.modules(), [&](const pybind11::handle& name,
                                                                const pybind11::handle& child) {
           return !path.contains(child) && any_module({child, name, &path}, visit);
         });
}

// The module that a dotted path leads to, by registered submodules; null if none.
pybind11::handle submodule(const pybind11::handle& root, std::string_view path);

}  // namespace functorch_ext
