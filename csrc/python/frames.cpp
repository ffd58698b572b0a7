// Python never starts or ends a frame of a transform by itself. It hands over the function that is
// to run inside, so that the frame ends with it whatever happens: a signal handler (Ctrl-C) may
// raise between any two of Python's instructions, those of a `finally` included.
#include "python/frames.h"

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <memory>

#include "autodiff/forward.h"
#include "autodiff/reverse.h"
#include "engine/frames.h"
#include "engine/repeated_draws.h"
#include "functionalization/frame.h"
#include "python/noted_errors.h"
#include "python/objects.h"
#include "python/recorded_after_dispatch.h"
#include "python/warned_by_python.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

using Tensors = std::vector<at::Tensor>;

// body(frame), in a frame that Python may keep: what it has recorded can be used later.
template <class Frame>
py::object run_inside(const std::shared_ptr<Frame>& frame, const py::function& body) {
  const FrameEnd end(*frame);
  return noting_errors([&]() -> py::object { return body(frame); });
}

py::object run_batch(const py::function& body, const c10::SymInt& batch_size, Randomness randomness,
                     const Tensors& above) {
  return recorded_after_dispatch([&] {
    const BatchFrame frame(batch_size, randomness, /*is_plane=*/true, above);
    return noting_errors([&]() -> py::object { return body(frame.level()); });
  });
}

py::object run_basis(const py::function& body, const c10::SymInt& count, const Tensors& above,
                     Randomness randomness) {
  const BatchFrame frame(count, randomness, /*is_plane=*/false, above);
  return noting_errors([&]() -> py::object { return body(frame.level()); });
}

py::object pull_back(const ReverseFrame& frame, const Tensors& outputs,
                     const std::vector<std::optional<at::Tensor>>& cotangents, bool keep_graph) {
  return recorded_after_dispatch([&] {
    return noting_errors([&]() -> py::object {
      const auto gradients = warned_by_python([&] {
        const py::gil_scoped_release no_gil;
        return frame.pull_back(outputs, cotangents, keep_graph);
      });
      return py::cast(gradients);
    });
  });
}

Tensors pull_back_basis(const ReverseFrame& frame, const Tensors& outputs, const c10::SymInt& start,
                        const c10::SymInt& count, bool keep_graph) {
  return warned_by_python([&] {
    const py::gil_scoped_release no_gil;
    return frame.pull_back_basis(outputs, start, count, keep_graph);
  });
}

py::object run_functional(const py::function& body, bool remove_views) {
  return recorded_after_dispatch([&] {
    const auto frame = std::make_shared<FunctionalFrame>(remove_views);
    auto result = run_inside(frame, body);
    frame->write_back();
    return result;
  });
}

py::object run_below(const LevelPtr& level, const py::function& func, const py::args& args,
                     const py::kwargs& kwargs) {
  const BelowFrame below(level);
  return called(func, args, kwargs);
}

py::object run_below_all(const py::function& func, const py::args& args, const py::kwargs& kwargs) {
  const auto running = thread_state().innermost;
  if (!running) {
    return called(func, args, kwargs);
  }
  const BelowFrame below(running);
  return run_below_all(func, args, kwargs);
}

py::object run_again(const LevelPtr& level, const py::function& func, const py::args& args,
                     const py::kwargs& kwargs) {
  const RevivedFrame revived(level);
  return called(func, args, kwargs);
}

py::object run_with_grad_mode(bool enabled, const py::function& func, const py::args& args) {
  const c10::AutoGradMode mode(enabled);
  return func(*args);
}

py::object run_outside_inference_mode(const py::function& func, const py::args& args) {
  const c10::InferenceMode mode(false);
  const c10::AutoGradMode without_grad(false);
  return func(*args);
}

// The methods of a context manager that calls enter(*prepare(self)) and exit(), both of which are
// functions in C: an interrupt can't come between what they do and the end of the method.
py::tuple context_methods(const py::function& prepare, const py::function& enter,
                          const py::function& exit) {
  const py::is_method is_method((py::none()));
  return py::make_tuple(
      py::cpp_function(
          [=](py::object self) {
            enter(*prepare(self));
            return self;
          },
          is_method),
      py::cpp_function([=](const py::object&, const py::args&) { exit(); }, is_method));
}

// [function(item) for item in items], where all calls draw the same random numbers.
py::list map_with_same_draws(const py::function& function, const py::iterable& items) {
  RepeatedDraws draws;
  py::list results;
  for (const auto item : items) {
    draws.rewind();
    results.append(function(item));
  }
  return results;
}

}  // namespace

void register_forward_decompositions() {
  static bool registered = false;
  if (!registered) {
    py::module_::import("torch._decomp.decompositions_for_jvp");
    registered = true;
  }
}

void bind_frames(py::module_& module) {
  const auto no_tensors = py::arg("above") = Tensors();

  // With the level as the function's argument: a vmap, or a Jacobian's basis. The level is deeper
  // than all tensors `above`.
  module.def("run_batch", &run_batch, py::arg("body"), py::arg("batch_size"), py::arg("randomness"),
             no_tensors);
  module.def("run_basis", &run_basis, py::arg("body"), py::arg("count"), no_tensors,
             py::arg("randomness") = Randomness::Same);

  // With the frame as the function's argument.
  using ReversePtr = std::shared_ptr<ReverseFrame>;
  py::class_<ReverseFrame, ReversePtr>(module, "ReverseFrame")
      .def("differentiable", &ReverseFrame::differentiable)
      .def("pull_back", &pull_back)
      .def("pull_back_basis", &pull_back_basis)
      .def("strip", &ReverseFrame::strip)
      .def("release", &ReverseFrame::release);
  module.def("run_reverse", [](const py::function& body) {
    if (!thread_state().plane) {
      refuse_torchscript();
    }
    return recorded_after_dispatch(
        [&] { return run_inside(std::make_shared<ReverseFrame>(), body); });
  });

  using ForwardPtr = std::shared_ptr<ForwardFrame>;
  py::class_<ForwardFrame, ForwardPtr>(module, "ForwardFrame")
      .def("make_dual", &ForwardFrame::make_dual)
      .def("strip", &ForwardFrame::strip)
      .def("unpack", &ForwardFrame::unpack);
  // Forward mode runs on the plane of the deepest of these tensors.
  module.def("run_forward", [](const py::function& body, const Tensors& primals) {
    register_forward_decompositions();
    return recorded_after_dispatch(
        [&] { return run_inside(std::make_shared<ForwardFrame>(primals), body); });
  });

  // The same for code that runs again, which was in such a frame.
  module.def("run_forward_again", [](const py::function& body, const Tensors& primals) {
    return recorded_after_dispatch([&] {
      return run_inside(std::make_shared<ForwardFrame>(primals, ForwardFrame::Planes::AsBefore),
                        body);
    });
  });

  using FunctionalPtr = std::shared_ptr<FunctionalFrame>;
  py::class_<FunctionalFrame, FunctionalPtr>(module, "FunctionalFrame")
      .def("wrap", &FunctionalFrame::wrap)
      .def("unwrap", &FunctionalFrame::unwrap);
  module.def("run_functional", &run_functional, py::arg("body"), py::arg("remove_views"));

  // With given arguments: on the plane below a level, or plane 0; or in a level that has returned.
  module.def("run_below", &run_below);
  module.def("run_below_all", &run_below_all);
  module.def("run_again", &run_again);
  module.def("run_with_grad_mode", &run_with_grad_mode);
  module.def("run_outside_inference_mode", &run_outside_inference_mode);

  module.def("refuse_torchscript", &refuse_torchscript);
  module.def("context_methods", &context_methods);
  module.def("map_with_same_draws", &map_with_same_draws);
}

}  // namespace functorch_ext
