#include "python/call_differentiated.h"

#include <vector>

#include "autodiff/reverse.h"
#include "python/bound_calls.h"
#include "python/noted_errors.h"
#include "python/objects.h"
#include "python/plain_trees.h"
#include "python/recorded_after_dispatch.h"
#include "python/warned_by_python.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

py::object call_differentiated(const py::tuple& bound, const py::tuple& args,
                               const py::dict& kwargs) {
  const auto func = bound_part(bound, 0);
  const auto argnum = PyLong_AsLongLong(bound_part(bound, 1).ptr());
  const auto check = bound_part(bound, 2);
  const bool with_value = bound_part(bound, 3).ptr() == Py_True;
  const auto otherwise = bound_part(bound, 4);
  const auto count = static_cast<int64_t>(args.size());
  const auto position = argnum < 0 ? argnum + count : argnum;
  std::vector<at::Tensor> inputs;
  const bool fits = position >= 0 && position < count &&
                    all_leaves(
                        args[position],
                        [&](const py::handle& leaf) {
                          if (!THPVariable_Check(leaf.ptr())) {
                            return false;
                          }
                          inputs.push_back(THPVariable_Unpack(leaf.ptr()));
                          return inputs.back().is_floating_point() || inputs.back().is_complex();
                        });
  if (!fits || inputs.empty() || records_before_dispatch()) {
    return otherwise(args, kwargs);
  }
  if (!thread_state().plane) {
    refuse_torchscript();
  }

  ReverseFrame frame;
  // The function may change the container that it gets: the gradients are shaped as another one.
  const auto structure = with_leaves(args[position], inputs);
  py::tuple arguments(args.size());
  for (int64_t i = 0; i < count; ++i) {
    arguments[i] =
        i == position ? with_leaves(structure, frame.differentiable(inputs)) : py::object(args[i]);
  }
  return noting_errors([&]() -> py::object {
    const auto output = called(func, arguments, kwargs);
    if (!THPVariable_Check(output.ptr()) || THPVariable_Unpack(output.ptr()).dim() != 0) {
      check(output);
    }
    const at::Tensor value = THPVariable_Unpack(output.ptr());
    const auto gradients = warned_by_python([&] {
      const py::gil_scoped_release no_gil;
      auto pulled_back = frame.pull_back({value}, {std::nullopt}, /*keep_graph=*/false);
      for (auto& gradient : pulled_back) {
        gradient = frame.strip(gradient);
      }
      return pulled_back;
    });
    return py::make_tuple(with_leaves(structure, gradients),
                          with_value ? python_tensor(frame.release(value)) : py::none(),
                          py::none());
  });
}

}  // namespace

py::object differentiated_call(const py::object& func, int64_t argnum, const py::object& check,
                               bool with_value, const py::object& otherwise) {
  return bound_call<&call_differentiated>(
      py::make_tuple(func, argnum, check, with_value, otherwise));
}

}  // namespace functorch_ext
