// functional_call: a module's parameters and buffers stand aside for others while it is called.
#include "python/module_state.h"

#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "python/module_swap.h"
#include "python/module_tables.h"
#include "python/objects.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// Is the module, or one inside it, of the class?
bool has_module_of(const py::handle& root, const py::handle& type) {
  auto* const wanted = reinterpret_cast<PyTypeObject*>(type.ptr());
  return any_module({root}, [&](const ModulePath& path, const Tables&) {
    return PyObject_TypeCheck(path.module.ptr(), wanted) != 0;
  });
}

// Visits all parameters and buffers, under all their names: visit(path, name, tensor).
template <class Visit>
void for_each_tensor_of(const py::handle& root, Visit&& visit) {
  any_module({root}, [&](const ModulePath& path, const Tables& tables) {
    for (const auto& table : {tables.parameters(), tables.buffers()}) {
      any_entry(table, [&](const py::handle& name, const py::handle& tensor) {
        visit(path, name, tensor);
        return false;
      });
    }
    return false;
  });
}

// Has some tensor of the module several names? (One of a module that contains itself has.)
bool has_tied_tensors(const py::object& root) {
  wait_for_other_threads(root);
  std::vector<PyObject*> tensors;
  bool cyclic = false;
  any_module({root}, [&](const ModulePath& path, const Tables& tables) {
    const auto collect = [&](const py::handle&, const py::handle& tensor) {
      tensors.push_back(tensor.ptr());
      return false;
    };
    any_entry(tables.parameters(), collect);
    any_entry(tables.buffers(), collect);
    cyclic = cyclic || any_entry(tables.modules(), [&](const py::handle&, const py::handle& child) {
               return path.contains(child);
             });
    return false;
  });
  std::sort(tensors.begin(), tensors.end());
  return cyclic || std::adjacent_find(tensors.begin(), tensors.end()) != tensors.end();
}

std::vector<std::string> tensor_names(const py::handle& root) {
  std::vector<std::string> names;
  for_each_tensor_of(root, [&](const ModulePath& path, const py::handle& name, const py::handle&) {
    names.push_back(path.name_of(name));
  });
  return names;
}

std::pair<std::string_view, py::str> path_and_name(const py::handle& key) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(key.ptr(), &size);
  if (!text) {
    throw py::error_already_set();
  }
  const std::string_view full(text, size);
  const auto dot = full.rfind('.');
  const auto start = dot == full.npos ? 0 : dot + 1;
  return {full.substr(0, dot == full.npos ? 0 : dot), py::str(text + start, full.size() - start)};
}

// For each key that leads to a tensor of the module: the key, the tensor and all names of that.
std::vector<std::tuple<py::object, py::object, std::vector<std::string>>> names_of_same(
    const py::object& root, const py::dict& given) {
  wait_for_other_threads(root);
  std::unordered_map<PyObject*, std::vector<std::string>> names_of;
  for_each_tensor_of(root,
                     [&](const ModulePath& path, const py::handle& name, const py::handle& tensor) {
                       names_of[tensor.ptr()].push_back(path.name_of(name));
                     });
  std::vector<std::tuple<py::object, py::object, std::vector<std::string>>> rows;
  for (const auto& [key, value] : given) {
    if (!PyUnicode_CheckExact(key.ptr())) {
      continue;
    }
    const auto [path, name] = path_and_name(key);
    const auto owner = submodule(root, path);
    const auto table = owner ? Tables(owner).table_of(name) : py::handle();
    const auto tensor = table ? py::handle(PyDict_GetItem(table.ptr(), name.ptr())) : table;
    if (tensor && !tensor.is_none()) {
      rows.emplace_back(py::reinterpret_borrow<py::object>(key),
                        py::reinterpret_borrow<py::object>(tensor), names_of[tensor.ptr()]);
    }
  }
  return rows;
}

// A recurrent layer makes its lists of weights anew where the references say that the weights are
// others: its own lists come back, too.
void add_listed_weights(const Tables& owner, std::vector<SwappedEntry>& entries) {
  for (const auto& name : Tables::names_of_lists()) {
    if (const auto weights = owner.list_of_weights(name)) {
      entries.push_back({py::reinterpret_borrow<py::dict>(owner.state()), name, py::none(),
                         py::reinterpret_borrow<py::object>(weights)});
    }
  }
}

// Where the values go; nothing if one of them is no tensor or stands for anything else than a
// parameter or a buffer in a plain table.
std::optional<std::vector<SwappedEntry>> entries_for(const py::object& root,
                                                     const py::dict& values) {
  std::vector<SwappedEntry> entries;
  entries.reserve(values.size());
  std::string_view owner_path;
  std::optional<Tables> owner(std::in_place, root);
  add_listed_weights(*owner, entries);
  for (const auto& [key, value] : values) {
    if (!PyUnicode_CheckExact(key.ptr()) || !(value.is_none() || THPVariable_Check(value.ptr()))) {
      return std::nullopt;
    }
    auto [path, name] = path_and_name(key);
    if (path != owner_path) {  // Names come grouped by module: mostly it is the one before.
      const auto module = submodule(root, path);
      if (!module) {
        return std::nullopt;
      }
      owner.emplace(module);
      add_listed_weights(*owner, entries);
      owner_path = path;
    }
    const auto table = owner->table_of(name);
    if (!table) {
      return std::nullopt;
    }
    entries.push_back({py::reinterpret_borrow<py::dict>(table), std::move(name),
                       py::reinterpret_borrow<py::object>(key),
                       py::reinterpret_borrow<py::object>(value)});
  }
  return entries;
}

// The result of module(*args, **kwargs) with the values in place. What the module assigns to them
// goes to `given`.
py::object call_swapped(const py::object& root, std::vector<SwappedEntry> entries,
                        const py::dict& given, const py::tuple& args, const py::dict& kwargs) {
  Swap swap(root, std::move(entries));
  try {
    auto result = called(root, args, kwargs);
    swap.undo(given);
    return result;
  } catch (...) {
    swap.undo(given);  // Once more does nothing.
    throw;
  }
}

// The same in a tuple; None if the values can't be put in place this way.
std::optional<py::tuple> call_with_state(const py::object& root, const py::dict& values,
                                         const py::dict& given, const py::tuple& args,
                                         const py::dict& kwargs) {
  auto entries = entries_for(root, values);
  if (!entries) {
    return std::nullopt;
  }
  return py::make_tuple(call_swapped(root, std::move(*entries), given, args, kwargs));
}

// With entries that Python found: (table, name, key, value) each.
py::object call_with_entries(const py::object& root, const py::list& found, const py::dict& given,
                             const py::tuple& args, const py::dict& kwargs) {
  std::vector<SwappedEntry> entries;
  for (const auto& row : found) {
    auto [table, name, key, value] =
        row.cast<std::tuple<py::dict, py::str, py::object, py::object>>();
    entries.push_back({std::move(table), std::move(name), std::move(key), std::move(value)});
  }
  return call_swapped(root, std::move(entries), given, args, kwargs);
}

}  // namespace

void bind_module_state(py::module_& module) {
  module.def("call_with_state", &call_with_state);
  module.def("call_with_entries", &call_with_entries);
  module.def("has_module_of", &has_module_of);
  module.def("has_tied_tensors", &has_tied_tensors);
  module.def("names_of_same", &names_of_same);
  module.def("tensor_names", &tensor_names);
  module.def("set_longest_wait", &set_longest_wait);
}

}  // namespace functorch_ext
