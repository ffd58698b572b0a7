// The Python face of the engine: functorch_ext._C.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>

#include "autodiff/backward_pass.h"
#include "autodiff/basis.h"
#include "autodiff/forward.h"
#include "autodiff/plane.h"
#include "autodiff/private_leaf.h"
#include "autodiff/reverse.h"
#include "autodiff/saved_planes.h"
#include "autodiff/subclasses.h"
#include "batching/large_memory.h"
#include "batching/patches.h"
#include "batching/rules.h"
#include "derivatives/missing_forward.h"
#include "derivatives/register.h"
#include "engine/arguments.h"
#include "engine/below_all_levels.h"
#include "engine/boxed.h"
#include "engine/derivatives.h"
#include "engine/failed_operator.h"
#include "engine/frames.h"
#include "engine/keys.h"
#include "engine/registration.h"
#include "engine/torch_func.h"
#include "functionalization/mode.h"
#include "python/call_differentiated.h"
#include "python/call_forward.h"
#include "python/call_mapped.h"
#include "python/frames.h"
#include "python/functions.h"
#include "python/gradient_edges.h"
#include "python/indexing.h"
#include "python/jitted_calls.h"
#include "python/makers.h"
#include "python/module_state.h"
#include "python/objects.h"
#include "python/observation.h"
#include "python/permutations.h"
#include "python/plain_application.h"
#include "python/planes.h"
#include "python/recorded_after_dispatch.h"
#include "python/replaced_apply.h"
#include "python/requires_grad.h"
#include "python/rules.h"
#include "python/saved_tensors_hooks.h"
#include "python/switch.h"
#include "taylor/collapsed.h"

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
  const auto& level = wrapper->level();
  const auto* kind = level.has_samples           ? "Batched"
                     : level.stands_for_values() ? "Dual"
                                                 : "Functional";
  py::object bdim = py::none();
  if (wrapper->is_batched()) {
    bdim = py::int_(wrapper->bdim());
  }
  return py::make_tuple(wrapper->value(), kind, level.depth, bdim);
}

// The deepest running level that any of the arguments is a tensor of.
LevelPtr level_of_tensors(const py::tuple& arguments) {
  DeepestLevel deepest;
  for (const auto& argument : arguments) {
    if (THPVariable_Check(argument.ptr())) {
      deepest(THPVariable_Unpack(argument.ptr()));
    }
  }
  return deepest.level ? LevelPtr::reclaim_copy(deepest.level) : LevelPtr();
}

// The same, but for functionalize's; or the vmap that draws random numbers for each sample,
// whatever the arguments. None if a transform of torch.func's is inside, which comes first.
LevelPtr level_of(const py::tuple& arguments) {
  if (torch_func_is_innermost()) {
    return {};
  }
  auto level = level_of_tensors(arguments);
  const auto& running = thread_state().plane;
  if (running && running->has_samples && running->randomness == Randomness::Different &&
      (!level || level->depth < running->depth)) {
    return running;
  }
  return level && !level->computes_operators ? level : LevelPtr();
}

// The value that a tensor stands for on the plane below a level, and its bdim or none.
std::pair<at::Tensor, std::optional<int64_t>> unwrap(const Level& level, const at::Tensor& tensor) {
  const auto bdim = bdim_of(tensor, level);
  return {value_of(tensor, level), bdim == no_bdim ? std::nullopt : std::optional(bdim)};
}

// function(*arguments) on the plane of the deepest of the tensors.
py::object call_on_plane_of(const py::tuple& tensors, const py::function& function,
                            const py::args& arguments) {
  return recorded_after_dispatch([&]() -> py::object {
    const OnPlane plane(tensors_in(tensors));
    return function(*arguments);
  });
}

// function(*arguments) as code of the program that an operator calls.
py::object call_outside_rules(const py::function& function, const py::args& arguments) {
  const OutsideRules outside;
  return function(*arguments);
}

// Does a transform of ours differentiate what is called now, rather than one of torch.func's?
bool differentiates_here() {
  return is_differentiating() && !torch_func_is_innermost();
}

// What the front-end for custom autograd functions needs of a level.
void bind_level(py::module_& module) {
  const auto any_tensor = [](const py::tuple& arguments, auto&& holds) {
    const auto tensors = tensors_in(arguments);
    return std::any_of(tensors.begin(), tensors.end(), holds);
  };
  py::class_<Level, LevelPtr>(module, "Level")
      .def_property_readonly("batch_size", [](const Level& level) { return level.batch_size; })
      .def_readonly("randomness", &Level::randomness)
      .def_readonly("has_samples", &Level::has_samples)
      .def_readonly("depth", &Level::depth)
      .def_property_readonly("is_running", &Level::is_running)
      .def("wrap",
           [](const Level& level, const at::Tensor& value, std::optional<int64_t> bdim) {
             return wrap(value, bdim.value_or(no_bdim), level);
           })
      .def("unwrap", &unwrap)
      .def("is_batched", [](const Level& level,
                            const at::Tensor& tensor) { return is_batched_at(tensor, level); })
      .def("stacked", [](const Level& level, const at::Tensor& tensor,
                         int64_t out_dim) { return stacked(tensor, out_dim, level); })
      .def("differentiates",
           [any_tensor](const Level& level, const py::tuple& arguments) {
             return any_tensor(arguments, [&](const at::Tensor& tensor) {
               return wrapper_at(tensor, level) && is_differentiated(tensor);
             });
           })
      .def("is_differentiated_below", [any_tensor](const Level& level, const py::tuple& arguments) {
        return any_tensor(arguments, [&](const at::Tensor& tensor) {
          return is_differentiated_below(tensor, level);
        });
      });
  module.def("level_of", &level_of);
  module.def("call_on_plane_of", &call_on_plane_of);
  module.def("level_of_tensors", &level_of_tensors);
  py::class_<SavedPlanes>(module, "SavedPlanes")
      .def(py::init<const at::Tensor&>())
      .def("restore", &SavedPlanes::restore);
  module.def("call_outside_rules", &call_outside_rules);
  // The innermost level that runs on this thread, or none. (`grad` outside of vmap has no level.)
  module.def("running_level", [] { return thread_state().innermost; });
  module.def("is_differentiating", &differentiates_here);
  module.def("transform_runs", [] { return thread_state().innermost || differentiates_here(); });
  // function(*args) of PyTorch's, on what a transform computes with: what it makes is nobody's own.
  module.def("run_outside_levels", [](const py::function& function, const py::args& args) {
    const Position outside({}, {});
    return function(*args);
  });
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  check_keys_are_free();
  for (const auto& family : rule_families) {
    const FamilyScope scope(family.name);
    family.register_rules();
  }
  register_derivatives();
  register_random_kernels();
  register_private_leaf();
  register_fallbacks();
  register_functional_mode();
  reuse_freed_memory();
  set_fallback_warner(&warn_through_python);
  set_given_rule(&apply_python_rule);

  py::enum_<Randomness>(module, "Randomness")
      .value("ERROR", Randomness::Error)
      .value("SAME", Randomness::Same)
      .value("DIFFERENT", Randomness::Different);

  module.def("as_view_of", &as_view_of);
  module.def("standard_basis", &standard_basis);
  module.def("scaled_and_squared", &scaled_and_squared, py::call_guard<py::gil_scoped_release>());
  module.def("set_subclass_makers",
             [](decltype(SubclassMakers::seed) seed, decltype(SubclassMakers::basis) basis) {
               set_subclass_makers({std::move(seed), std::move(basis)});
             });
  module.def("run_backward", &run_backward, py::call_guard<py::gil_scoped_release>());
  module.def("tensor_of_edge", &tensor_of_edge);

  module.def("registered_operators", [] {
    std::vector<std::tuple<std::string, std::string, bool>> rows;
    for (const auto& [op, family, has_rule] : registered_operators()) {
      rows.emplace_back(op, family, has_rule);
    }
    return rows;
  });
  py::enum_<BuiltinRole>(module, "BuiltinRole")
      .value("MAKES", BuiltinRole::Makes)
      .value("MAKES_BETWEEN", BuiltinRole::MakesBetween)
      .value("COPIES", BuiltinRole::Copies)
      .value("HANDS_OUT", BuiltinRole::HandsOut)
      .value("HANDS_POINTER", BuiltinRole::HandsPointer)
      .value("READS", BuiltinRole::Reads)
      .value("COMPUTES", BuiltinRole::Computes);
  module.def("watch_builtin", &watch_builtin, py::arg("function"), py::arg("role"),
             py::arg("of_elements") = py::none());
  module.def("set_watched", &set_watched);
  module.def("add_type_of_fakes", &add_type_of_fakes);
  module.def("own_tensor", &own_tensor);
  module.def("has_storage", [](const at::Tensor& tensor) { return tensor.has_storage(); });
  module.def("below_all_levels", [](const at::Tensor& tensor) { return below_all_levels(tensor); });
  module.def("mapped_call", &mapped_call);
  module.def("differentiated_call", &differentiated_call);
  module.def("call_forward", &call_forward);
  bind_jitted_calls(module);
  bind_module_state(module);
  bind_level(module);
  bind_frames(module);
  bind_python_functions(module);
  bind_switch(module);
  bind_saved_tensors_hooks(module);
  bind_permutations(module);
  bind_plain_application(module);
  bind_replaced_apply(module);
  bind_observation(module);
  bind_planes(module);
  // For benchmarks.forms, which measures it beside the other forms.
  module.def(
      "weight_gradient_of_patches",
      [](const at::Tensor& grad, const at::Tensor& input, std::vector<int64_t> kernel,
         std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation) {
        return weight_gradient_of_patches(
            grad, input,
            {std::move(kernel), std::move(stride), std::move(padding), std::move(dilation)});
      });
  module.def("failed_operator", &failed_operator);
  module.def("register_missing_forward", &register_missing_forward);
  module.def("live_levels", &Level::count);
  module.def("memory_refusals", [] { return thread_state().memory_refusals; });
  module.def("refuse_foreign_tensor", &refuse_foreign_tensor);
  module.def("foreign_tensors", [] { return thread_state().foreign_tensors; });
  module.def("describe", &describe);
  module.def("is_like", [](const at::Tensor& derivative, const at::Tensor& tensor) {
    return derivative.sym_sizes() == tensor.sym_sizes() && derivative.dtype() == tensor.dtype() &&
           derivative.device() == tensor.device();
  });
  module.def("requires_grad_here", [](const at::Tensor& tensor) { return tensor.requires_grad(); });
  module.def("replace_requires_grad", &replace_requires_grad);
  module.def("indexing_methods", &indexing_methods);
  module.def("join_dual_level", &ForwardFrame::join_dual_level);
  module.def("leave_dual_level", &ForwardFrame::leave_dual_level,
             py::call_guard<py::gil_scoped_release>());
}

}  // namespace functorch_ext
