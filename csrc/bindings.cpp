// The Python face of the engine: functorch_ext._C.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "autodiff/forward.h"
#include "autodiff/reverse.h"
#include "batching/rules.h"
#include "call_mapped.h"
#include "engine/boxed.h"
#include "engine/frames.h"
#include "engine/registration.h"
#include "functionalization/frame.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// Reports a per-sample loop through Python's warnings; functorch_ext._warnings decides how.
void warn_through_python(const std::string& message) {
  const py::gil_scoped_acquire gil;
  py::module_::import("functorch_ext._warnings").attr("warn_of_loop")(message);
}

// What a tensor is to the engine, for printing and errors: (value, kind, depth, bdim or None).
py::object describe(const at::Tensor& tensor) {
  if (!is_wrapper(tensor)) {
    return py::none();
  }
  const auto* wrapper = wrapper_of(tensor);
  static constexpr const char* kinds[] = {"Batched", "Dual", "Functional"};
  py::object bdim = py::none();
  if (wrapper->is_batched()) {
    bdim = py::int_(wrapper->bdim());
  }
  return py::make_tuple(wrapper->value(), kinds[static_cast<int>(wrapper->level().kind)],
                        wrapper->level().depth, bdim);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  register_batching_rules();
  register_fallbacks();
  register_functional_mode();
  set_fallback_warner(&warn_through_python);

  py::enum_<Randomness>(module, "Randomness")
      .value("ERROR", Randomness::Error)
      .value("SAME", Randomness::Same)
      .value("DIFFERENT", Randomness::Different);

  py::class_<BatchFrame>(module, "BatchFrame")
      .def(py::init<int64_t, Randomness, bool>())
      .def("exit", &BatchFrame::exit)
      .def("wrap", &BatchFrame::wrap)
      .def("is_batched", &BatchFrame::is_batched)
      .def("value", &BatchFrame::value)
      .def("unwrap", &BatchFrame::unwrap);

  py::class_<ReverseFrame>(module, "ReverseFrame")
      .def(py::init<>())
      .def("exit", &ReverseFrame::exit)
      .def("differentiable", &ReverseFrame::differentiable)
      .def("pull_back", &ReverseFrame::pull_back, py::call_guard<py::gil_scoped_release>())
      .def("depends", &ReverseFrame::depends)
      .def("share_privacy", &ReverseFrame::share_privacy)
      .def("release", &ReverseFrame::release);

  py::class_<ForwardFrame>(module, "ForwardFrame")
      .def(py::init<>())
      .def("exit", &ForwardFrame::exit)
      .def("make_dual", &ForwardFrame::make_dual)
      .def("strip", &ForwardFrame::strip)
      .def("unpack", &ForwardFrame::unpack);

  py::class_<FunctionalFrame>(module, "FunctionalFrame")
      .def(py::init<bool>())
      .def("exit", &FunctionalFrame::exit)
      .def("wrap", &FunctionalFrame::wrap)
      .def("unwrap", &FunctionalFrame::unwrap)
      .def("write_back", &FunctionalFrame::write_back);

  module.def("call_mapped", &call_mapped);
  module.def("live_levels", &Level::count);
  module.def("describe", &describe);
}

}  // namespace functorch_ext
