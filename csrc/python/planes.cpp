#include "python/planes.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "engine/onlooking.h"
#include "engine/thread_state.h"
#include "engine/wrapper.h"
#include "python/objects.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

const char* kind_of(const Level& level) {
  if (level.has_samples) {
    return level.is_basis ? "basis" : "vmap";
  }
  return level.computes_operators ? "functional" : "values";
}

// The levels that run on this thread, the outermost first.
py::list running_levels() {
  py::list levels;
  for (const auto* level = thread_state().innermost.get(); level; level = level->parent.get()) {
    levels.insert(0, described(plane_of(*level)));
  }
  return levels;
}

// Of a wrapper: (value, level, id of the level, bdim or None, is it running, is it own). None of a
// plain tensor.
py::object look_at(const at::Tensor& tensor) {
  if (!is_wrapper(tensor)) {
    return py::none();
  }
  const auto& wrapper = *wrapper_of(tensor);
  const auto plane = plane_of(wrapper.level());
  const py::object bdim = wrapper.is_batched() ? py::object(py::int_(wrapper.bdim())) : py::none();
  return py::make_tuple(python_tensor(wrapper.value()), described(plane), plane.level, bdim,
                        wrapper.level().is_running(), wrapper.is_own());
}

// The tangent of a tensor's own plane, or none. (All are at PyTorch's dual level 0.)
py::object tangent_of(const at::Tensor& tensor) {
  const auto& tangent = tensor._fw_grad(/*level=*/0);
  return tangent.defined() ? python_tensor(tangent) : py::none();
}

// function(*args) on what transforms compute with, as if none ran: no autograd, autocast or modes.
py::object run_outside_transforms(const py::function& function, const py::args& args) {
  constexpr auto differentiation = c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  const c10::impl::ForceDispatchKeyGuard plain(c10::default_included_set - differentiation,
                                               c10::default_excluded_set | differentiation);
  const Position outside({}, {});
  return function(*args);
}

}  // namespace

Plane plane_of(const Level& level) {
  return {level.depth, reinterpret_cast<uintptr_t>(&level), kind_of(level),
          level.batch_size.maybe_as_int().value_or(-1)};
}

py::tuple described(const Plane& plane) {
  return py::make_tuple(plane.kind, plane.depth, plane.size);
}

void bind_planes(py::module_& module) {
  module.def("running_levels", &running_levels);
  module.def("run_outside_transforms", &run_outside_transforms);
  module.def("begin_onlooking", &begin_onlooking);
  module.def("end_onlooking", &end_onlooking);
  module.def("look_at",
             [](const py::object& tensor) { return look_at(THPVariable_Unpack(tensor.ptr())); });
  module.def("tangent_of",
             [](const py::object& tensor) { return tangent_of(THPVariable_Unpack(tensor.ptr())); });
}

}  // namespace functorch_ext
