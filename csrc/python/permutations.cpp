#include "python/permutations.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <vector>

namespace py = pybind11;

namespace functorch_ext {

namespace {

// One of Python's numbers, or -1 if it is too large; nothing if it is something else.
std::optional<int64_t> whole_number(PyObject* object) {
  if (!PyLong_CheckExact(object)) {
    return std::nullopt;
  }
  int overflow = 0;
  const auto number = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow ? -1 : number;
}

// By how much all have to move on, if that is the same and there are no zeros.
std::optional<int64_t> rotation(const std::vector<int64_t>& sources) {
  const auto size = static_cast<int64_t>(sources.size());
  if (size == 0 || sources[0] < 0) {
    return std::nullopt;
  }
  for (int64_t to = 0; to < size; ++to) {
    if (sources[to] != (sources[0] + to) % size) {
      return std::nullopt;
    }
  }
  return (size - sources[0]) % size;
}

py::object sources_of(const py::list& pairs, int64_t size) {
  std::vector<int64_t> sources(size, -1);
  std::vector<bool> sent(size, false);
  for (const auto& pair : pairs) {
    if (!PyTuple_CheckExact(pair.ptr()) || PyTuple_GET_SIZE(pair.ptr()) != 2) {
      return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    }
    const auto source = whole_number(PyTuple_GET_ITEM(pair.ptr(), 0));
    const auto to = whole_number(PyTuple_GET_ITEM(pair.ptr(), 1));
    if (!source || !to) {
      return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    }
    if (*source < 0 || *source >= size || *to < 0 || *to >= size || sent[*source] ||
        sources[*to] >= 0) {
      return py::none();
    }
    sent[*source] = true;
    sources[*to] = *source;
  }
  if (const auto distance = rotation(sources)) {
    return py::int_(*distance);
  }
  return py::cast(sources);
}

}  // namespace

void bind_permutations(py::module_& module) {
  module.def("sources_of", &sources_of);
}

}  // namespace functorch_ext
