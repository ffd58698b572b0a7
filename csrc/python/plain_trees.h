#pragma once

#include <pybind11/pybind11.h>

#include <vector>

#include "python/objects.h"

namespace functorch_ext {

// Containers as most calls have them: dicts, lists and tuples, not of a subclass. Trees that hold
// anything else go through Python's pytrees, which know more kinds and explain errors.

constexpr int deepest_plain_tree = 16;  // A container may hold itself.

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
    for (const auto& [key, leaf] : py::reinterpret_borrow<py::dict>(tree)) {
      const auto changed = changed_leaves(leaf, change, depth + 1);
      if (!changed) {
        return {};
      }
      result[key] = changed;
    }
    return result;
  }
  const auto sequence = [&](auto result, auto&& get) -> py::object {
    for (size_t i = 0; i < result.size(); ++i) {
      const auto changed = changed_leaves(get(i), change, depth + 1);
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
      if (!all_leaves(leaf, visit, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  if (PyTuple_CheckExact(object) || PyList_CheckExact(object)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
      if (!all_leaves(PySequence_Fast_GET_ITEM(object, i), visit, depth + 1)) {
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
      PyObject* partner = PyDict_GetItemWithError(other.ptr(), key);
      if (!partner || !all_pairs(leaf, partner, visit, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
    if (!all_pairs(PySequence_Fast_GET_ITEM(object, i), PySequence_Fast_GET_ITEM(other.ptr(), i),
                   visit, depth + 1)) {
      return false;
    }
  }
  return true;
}

// The tree with its leaves replaced by the tensors, in order.
inline pybind11::object with_leaves(const pybind11::handle& tree,
                                    const std::vector<at::Tensor>& tensors) {
  auto next = tensors.begin();
  return changed_leaves(tree, [&](const pybind11::handle&) { return python_tensor(*next++); });
}

}  // namespace functorch_ext
