#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <vector>

#include "python/objects.h"

namespace functorch_ext {

// Containers as most calls have them: dicts, lists and tuples, not of a subclass. Trees that hold
// anything else go through Python's pytrees, which know more kinds and explain errors.

constexpr int deepest_plain_tree = 16;  // A container may hold itself.

// Whatever Python allocates may run a finalizer, which may let other threads run, and a key's
// __eq__ may do anything. So a leaf that is being looked at is held, sizes are looked at each time,
// and what was found out in one walk is found out again in the next.
[[noreturn]] inline void refuse_changed_tree() {
  throw std::runtime_error(
      "functorch_ext: a container of tensors was changed while a transform was reading it.");
}

// The tree with change(leaf) in place of each leaf, in the order of the containers; null if it is
// null for any of them, or if the tree is too deep. Containers are always new ones.
template <class Change>
pybind11::object changed_leaves(const pybind11::handle& tree, Change&& change, int depth = 0) {
  namespace py = pybind11;
  if (depth > deepest_plain_tree) {
    return {};
  }
  if (PyDict_CheckExact(tree.ptr())) {
    py::dict result;
    const auto size = PyDict_GET_SIZE(tree.ptr());
    PyObject *key = nullptr, *leaf = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(tree.ptr(), &position, &key, &leaf);) {
      const auto held_key = py::reinterpret_borrow<py::object>(key);
      const auto held = py::reinterpret_borrow<py::object>(leaf);
      const auto changed = changed_leaves(held, change, depth + 1);
      if (!changed) {
        return {};
      }
      result[held_key] = changed;
      if (PyDict_GET_SIZE(tree.ptr()) != size) {
        refuse_changed_tree();
      }
    }
    return result;
  }
  const auto sequence = [&](auto result, auto&& get) -> py::object {
    for (size_t i = 0; i < result.size(); ++i) {
      if (static_cast<size_t>(Py_SIZE(tree.ptr())) != result.size()) {
        refuse_changed_tree();
      }
      const auto held = py::reinterpret_borrow<py::object>(get(i));
      const auto changed = changed_leaves(held, change, depth + 1);
      if (!changed) {
        return {};
      }
      result[i] = changed;
    }
    return result;
  };
  if (PyTuple_CheckExact(tree.ptr())) {
    return sequence(py::tuple(PyTuple_GET_SIZE(tree.ptr())),
                    [&](size_t i) { return py::handle(PyTuple_GET_ITEM(tree.ptr(), i)); });
  }
  if (PyList_CheckExact(tree.ptr())) {
    return sequence(py::list(PyList_GET_SIZE(tree.ptr())),
                    [&](size_t i) { return py::handle(PyList_GET_ITEM(tree.ptr(), i)); });
  }
  return change(tree);
}

// Visits the leaves of the tree in that order until visit(leaf) is false; tells whether none was,
// and the tree is not too deep.
template <class Visit>
bool all_leaves(const pybind11::handle& tree, Visit&& visit, int depth = 0) {
  if (depth > deepest_plain_tree) {
    return false;
  }
  PyObject* object = tree.ptr();
  if (PyDict_CheckExact(object)) {
    PyObject *key = nullptr, *leaf = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(object, &position, &key, &leaf);) {
      const auto held = pybind11::reinterpret_borrow<pybind11::object>(leaf);
      if (!all_leaves(held, visit, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
      const auto held =
          pybind11::reinterpret_borrow<pybind11::object>(PySequence_Fast_GET_ITEM(object, i));
      if (!all_leaves(held, visit, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  return visit(tree);
}

// Visits the leaves of two trees together, until visit(leaf, other) is false; tells whether none
// was, the trees have the same containers with the same keys, and they are not too deep.
template <class Visit>
bool all_pairs(const pybind11::handle& tree, const pybind11::handle& other, Visit&& visit,
               int depth = 0) {
  if (depth > deepest_plain_tree) {
    return false;
  }
  PyObject* object = tree.ptr();
  const bool is_dict = PyDict_CheckExact(object);
  const bool is_sequence = PyTuple_CheckExact(object) || PyList_CheckExact(object);
  if (!is_dict && !is_sequence) {
    return visit(tree, other);
  }
  if (Py_TYPE(object) != Py_TYPE(other.ptr()) ||
      PyObject_Size(object) != PyObject_Size(other.ptr())) {
    return false;
  }
  if (is_dict) {
    PyObject *key = nullptr, *leaf = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(object, &position, &key, &leaf);) {
      const auto held_key = pybind11::reinterpret_borrow<pybind11::object>(key);
      const auto held = pybind11::reinterpret_borrow<pybind11::object>(leaf);
      const auto partner = pybind11::reinterpret_borrow<pybind11::object>(
          PyDict_GetItemWithError(other.ptr(), held_key.ptr()));
      if (PyErr_Occurred()) {
        throw pybind11::error_already_set();
      }
      if (!partner || !all_pairs(held, partner, visit, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
    if (PySequence_Fast_GET_SIZE(other.ptr()) <= i) {
      return false;
    }
    const auto held =
        pybind11::reinterpret_borrow<pybind11::object>(PySequence_Fast_GET_ITEM(object, i));
    const auto partner =
        pybind11::reinterpret_borrow<pybind11::object>(PySequence_Fast_GET_ITEM(other.ptr(), i));
    if (!all_pairs(held, partner, visit, depth + 1)) {
      return false;
    }
  }
  return true;
}

// The tree with its leaves replaced by the tensors, in order.
inline pybind11::object with_leaves(const pybind11::handle& tree,
                                    const std::vector<at::Tensor>& tensors) {
  auto next = tensors.begin();
  auto result = changed_leaves(tree, [&](const pybind11::handle&) {
    return next == tensors.end() ? pybind11::object() : python_tensor(*next++);
  });
  if (!result || next != tensors.end()) {
    refuse_changed_tree();
  }
  return result;
}

}  // namespace functorch_ext
