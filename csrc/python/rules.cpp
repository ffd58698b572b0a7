#include "python/rules.h"

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/python/pybind_utils.h>
#include <torch/csrc/utils/pybind.h>

#include "engine/frames.h"
#include "engine/wrapper.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// An argument as the rule gets it: the values of its tensors, and where their samples are.
struct Argument {
  py::object value;
  py::object in_dim;
};

Argument unwrap_argument(const c10::IValue& argument, const Level& level) {
  if (argument.isTensor() && argument.toTensor().defined()) {
    const auto& tensor = argument.toTensor();
    const auto bdim = bdim_of(tensor, level);
    return {py::cast(value_of(tensor, level)),
            bdim == no_bdim ? py::none() : py::object(py::int_(bdim))};
  }
  if (argument.isTensorList() || argument.isOptionalTensorList()) {
    py::list values;
    py::list in_dims;
    for (const c10::IValue& element : argument.toListRef()) {
      auto [value, in_dim] = unwrap_argument(element, level);
      values.append(std::move(value));
      in_dims.append(std::move(in_dim));
    }
    return {std::move(values), std::move(in_dims)};
  }
  return {torch::jit::toPyObject(argument), py::none()};
}

// One of the rule's results, (value, out_dim) or a list of such pairs, as a tensor of the level.
c10::IValue wrap_result(const py::handle& result, const Level& level) {
  if (py::isinstance<py::list>(result)) {
    c10::List<at::Tensor> tensors;
    for (const auto element : py::cast<py::list>(result)) {
      tensors.push_back(wrap_result(element, level).toTensor());
    }
    return tensors;
  }
  const auto [value, out_dim] = py::cast<std::pair<at::Tensor, std::optional<int64_t>>>(
      py::reinterpret_borrow<py::object>(result));
  return wrap(value, out_dim.value_or(no_bdim), level);
}

}  // namespace

bool apply_python_rule(const c10::OperatorHandle& op, const Level& level,
                       torch::jit::Stack* stack) {
  const py::gil_scoped_acquire gil;
  const auto rules = py::module_::import("functorch_ext.batching_rules");
  const auto& schema = op.schema();
  const auto rule = rules.attr("find_rule")(schema.name(), schema.overload_name());
  if (rule.is_none()) {
    return false;
  }
  const auto& parameters = schema.arguments();
  py::list args;
  py::list in_dims;
  py::dict kwargs;
  const auto offset = stack->size() - parameters.size();
  for (size_t i = 0; i < parameters.size(); ++i) {
    auto [value, in_dim] = unwrap_argument((*stack)[offset + i], level);
    if (parameters[i].kwarg_only()) {
      kwargs[py::str(parameters[i].name())] = std::move(value);
    } else {
      args.append(std::move(value));
      in_dims.append(std::move(in_dim));
    }
  }
  py::list results;
  {
    const BelowFrame below(LevelPtr::reclaim_copy(const_cast<Level*>(&level)));
    results = rules.attr("apply_rule")(rule, schema.name(), schema.returns().size(),
                                       level.batch_size.guard_int(__FILE__, __LINE__),
                                       level.randomness, in_dims, args, kwargs);
  }
  torch::jit::drop(*stack, parameters.size());
  for (const auto result : results) {
    stack->push_back(wrap_result(result, level));
  }
  return true;
}

}  // namespace functorch_ext
