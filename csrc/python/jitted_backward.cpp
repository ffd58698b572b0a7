#include "python/jitted_backward.h"

#include <c10/core/GradMode.h>
#include <c10/core/SafePyObject.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/PyInterpreter.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "engine/derivatives.h"
#include "engine/thread_state.h"
#include "engine/torch_func.h"
#include "python/objects.h"
#include "releases/nodes.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0 : static_cast<int64_t>(tensor._version());
}

torch::autograd::edge_list edges_of(const BackwardPlan& plan, const KernelInputs& inputs) {
  torch::autograd::edge_list edges;
  edges.reserve(plan.by.size());
  for (const auto position : plan.by) {
    edges.push_back(torch::autograd::impl::gradient_edge(*inputs[position]));
  }
  return edges;
}

class JitBackward final : public torch::autograd::Node {
 public:
  JitBackward(std::shared_ptr<const BackwardPlan> plan, PyObject* compiled,
              const KernelInputs& inputs)
      : Node(edges_of(*plan, inputs)),
        plan_(std::move(plan)),
        compiled_(Py_NewRef(compiled), getPyInterpreter()) {
    for (const auto* tensor : inputs) {
      inputs_.push_back(*tensor);
      versions_.push_back(version_of(*tensor));
    }
  }

  void save(const std::vector<at::Tensor>& results) {
    for (const auto position : plan_->differentiable) {
      keys_.push_back(results[position].key_set());
    }
    for (const auto position : plan_->saved) {
      const bool is_input = position < inputs_.size();
      const auto& tensor = is_input ? inputs_[position] : results[position - inputs_.size()];
      const bool is_output = !is_input && tensor.requires_grad();
      saved_.emplace_back(tensor, is_output);
    }
  }

  std::string name() const override {
    return "functorch_ext::JitBackward";
  }

  void release_variables() override {
    const std::lock_guard lock(mutex_);
    for (auto& each : saved_) {
      each.reset_data();
    }
    inputs_.clear();
    versions_.clear();
  }

  variable_list apply(variable_list&& cotangents) override {
    const std::lock_guard lock(mutex_);
    const py::gil_scoped_acquire lock_of_python;
    for (size_t i = 0; i < cotangents.size(); ++i) {
      if (!cotangents[i].defined()) {
        cotangents[i] = input_metadata(i).zeros_like();
      }
    }
    if (c10::GradMode::is_enabled() || operators_are_followed()) {
      return followed_gradients(cotangents);
    }
    variable_list given;
    given.reserve(saved_.size() + cotangents.size());
    for (const auto& each : saved_) {
      given.push_back(each.unpack(pointer_to(*this)));
    }
    for (size_t i = 0; i < cotangents.size(); ++i) {
      const auto& each = cotangents[i];
      const bool fits = has_memory(each, i) && each.strides() == at::IntArrayRef(plan_->strides[i]);
      given.push_back(fits ? each : each.clone(at::MemoryFormat::Contiguous));
      if (!has_memory(given.back(), i)) {
        return followed_gradients(cotangents);
      }
    }
    KernelInputs inputs;
    for (const auto& each : given) {
      inputs.push_back(&each);
    }
    return run_kernel(plan_->backward, plan_->by.size(), inputs, {});
  }

 private:
  // Does a kernel find a cotangent's numbers in its memory, as it finds the output's?
  bool has_memory(const at::Tensor& cotangent, size_t i) const {
    return cotangent.key_set() == keys_[i] &&
           !cotangent.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  }

  variable_list followed_gradients(const variable_list& cotangents) {
    py::object kept = py::none();
    if (!inputs_.empty()) {
      py::tuple inputs(inputs_.size());
      py::list versions(inputs_.size());
      for (size_t i = 0; i < inputs_.size(); ++i) {
        inputs[i] = python_tensor(inputs_[i]);
        versions[i] = versions_[i];
      }
      kept = py::make_tuple(inputs, versions);
    }
    py::list given(plan_->outputs);
    for (size_t i = 0; i < plan_->differentiable.size(); ++i) {
      given[plan_->differentiable[i]] = python_tensor(cotangents[i]);
    }
    const auto compiled = py::handle(compiled_.ptr(getPyInterpreter()));
    const auto twice = py::module_::import("functorch_ext._jit.twice");
    const py::list found = twice.attr("gradients")(compiled, kept, given);
    variable_list gradients;
    for (const auto position : plan_->by) {
      const py::handle each = found[position];
      gradients.push_back(each.is_none() ? at::Tensor() : THPVariable_Unpack(each.ptr()));
    }
    return gradients;
  }

  const std::shared_ptr<const BackwardPlan> plan_;
  const c10::SafePyObject compiled_;
  std::vector<SavedVariable> saved_;
  c10::SmallVector<c10::DispatchKeySet, 4> keys_;  // of the differentiable outputs
  std::vector<at::Tensor> inputs_;
  std::vector<int64_t> versions_;
};

}  // namespace

void record_backward(const std::shared_ptr<const BackwardPlan>& plan, PyObject* compiled,
                     const KernelInputs& inputs, std::vector<at::Tensor>& results) {
  const auto node = make_node<JitBackward>(plan, compiled, inputs);
  for (const auto position : plan->differentiable) {
    torch::autograd::set_history(results[position], node);
  }
  node->save(results);
}

bool operators_are_followed() {
  return thread_state().innermost || is_differentiating() || running_layers() > 0 ||
         c10::impl::TorchDispatchModeTLS::any_modes_set();
}

}  // namespace functorch_ext
