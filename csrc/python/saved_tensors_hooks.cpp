#include "python/saved_tensors_hooks.h"

#include <ATen/SavedTensorHooks.h>
#include <torch/csrc/PyInterpreter.h>

#include <utility>
#include <vector>

#include "engine/frames.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

using Hooks = at::SavedTensorDefaultHooks;

PyObject* adapt = nullptr;

// Programs rarely have such hooks, and pay nothing for them while no transform runs. A pair stays
// adapted until the program takes it off: it treats plain tensors as the pair itself does.
void adapt_all() {
  if (C10_LIKELY(Hooks::get_tls_state().stack.empty())) {
    return;
  }
  const py::gil_scoped_acquire gil;
  auto* interpreter = getPyInterpreter();
  auto state = Hooks::get_tls_state();
  std::vector<std::pair<py::object, py::object>> innermost_first;
  for (; !state.stack.empty(); state.stack.pop()) {
    const auto& [pack, unpack] = state.stack.top();
    innermost_first.emplace_back(py::reinterpret_borrow<py::object>(pack.ptr(interpreter)),
                                 py::reinterpret_borrow<py::object>(unpack.ptr(interpreter)));
  }
  const py::handle adapted(adapt);
  for (auto pair = innermost_first.rbegin(); pair != innermost_first.rend(); ++pair) {
    auto [pack, unpack] =
        adapted(pair->first, pair->second).cast<std::pair<py::object, py::object>>();
    state.stack.emplace(c10::SafePyObject(pack.release().ptr(), interpreter),
                        c10::SafePyObject(unpack.release().ptr(), interpreter));
  }
  Hooks::set_tls_state(state);
}

}  // namespace

void bind_saved_tensors_hooks(py::module_& module) {
  module.def("adapt_saved_tensors_hooks", [](const py::function& function) {
    adapt = py::object(function).release().ptr();
    set_before_levels(&adapt_all);
  });
}

}  // namespace functorch_ext
