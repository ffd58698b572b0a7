#include "python/jitted_calls.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <memory>
#include <unordered_map>
#include <vector>

#include "python/call_signature.h"
#include "python/compiled_kernel.h"
#include "python/jitted_backward.h"
#include "python/objects.h"
#include "python/plain_trees.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

using Inputs = KernelInputs;

// A place in the result's containers where a tensor belongs.
struct Slot {
  size_t index;
};

// What must still be the same object as when the function was traced: an entry of a dict, such as
// a module's table of parameters, or the value of a closure's cell.
struct Watched {
  PyObject* place;
  PyObject* key;
  PyObject* value;

  bool is_same() const {
    return (PyCell_Check(place) ? PyCell_GET(place) : PyDict_GetItemWithError(place, key)) == value;
  }
};

// A compiled graph. Python objects are borrowed: the jitted function in Python owns them.
struct Artifact {
  CallSignature signature;
  std::vector<py::object> compared;  // what the signature borrows
  std::vector<size_t> order;         // the graph's inputs among the call's tensors
  std::vector<at::Tensor> closed_over;
  std::vector<Watched> watched;
  c10::SmallVector<int64_t, 0> key_of_closed_over;
  std::vector<size_t> written;  // which inputs
  PyObject* compiled = nullptr;
  CompiledKernel kernel = nullptr;
  size_t outputs = 0;
  std::shared_ptr<const BackwardPlan> backward;  // or null, where nothing requires grad
  PyObject* result = nullptr;  // a plain tree with slots, or null: compiled.result makes it

  bool fits() const {
    for (const auto& each : watched) {
      if (!each.is_same()) {
        return false;
      }
    }
    c10::SmallVector<int64_t, 64> key;
    for (const auto& tensor : closed_over) {
      append_tensor(key, tensor);
    }
    return key == key_of_closed_over;
  }

  Inputs inputs(const CallSignature& call) const {
    Inputs result;
    for (const auto position : order) {
      result.push_back(call.tensors[position]);
    }
    for (const auto& tensor : closed_over) {
      result.push_back(&tensor);
    }
    return result;
  }

  // Would a write to an input be seen through another?
  bool writes_to_shared_memory(const Inputs& inputs) const {
    for (const auto position : written) {
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (i != position && inputs[i]->storage().data() == inputs[position]->storage().data()) {
          return true;
        }
      }
    }
    return false;
  }
};

py::list as_list(const std::vector<at::Tensor>& tensors) {
  py::list result(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    result[i] = python_tensor(tensors[i]);
  }
  return result;
}

py::object call_artifact(const Artifact& artifact, const Inputs& inputs) {
  if (!artifact.kernel) {
    py::list tensors(artifact.order.size());
    for (size_t i = 0; i < artifact.order.size(); ++i) {
      tensors[i] = python_tensor(*inputs[i]);
    }
    const c10::impl::ExcludeDispatchKeyGuard casts_are_in_the_graph(c10::autocast_dispatch_keyset);
    return py::handle(artifact.compiled)(tensors);
  }
  const py::object compiled = py::reinterpret_borrow<py::object>(artifact.compiled);
  const py::object tree = py::reinterpret_borrow<py::object>(artifact.result);
  auto results = run_kernel(artifact.kernel, artifact.outputs, inputs, artifact.written);
  if (artifact.backward) {
    record_backward(artifact.backward, artifact.compiled, inputs, results);
    results.resize(artifact.backward->outputs);
  }
  if (tree) {
    return changed_leaves(tree, [&](const py::handle& leaf) {
      return py::isinstance<Slot>(leaf) ? python_tensor(results[leaf.cast<const Slot&>().index])
                                        : py::reinterpret_borrow<py::object>(leaf);
    });
  }
  return compiled.attr("result")(as_list(results));
}

std::shared_ptr<const BackwardPlan> plan_of(const py::object& plan) {
  if (plan.is_none()) {
    return nullptr;
  }
  auto result = std::make_shared<BackwardPlan>();
  result->backward = reinterpret_cast<CompiledKernel>(plan.attr("backward").cast<uintptr_t>());
  result->outputs = plan.attr("outputs").cast<size_t>();
  result->differentiable = plan.attr("differentiable").cast<std::vector<size_t>>();
  result->by = plan.attr("by").cast<std::vector<size_t>>();
  result->saved = plan.attr("saved").cast<std::vector<size_t>>();
  result->strides = plan.attr("strides").cast<std::vector<std::vector<int64_t>>>();
  return result;
}

class JittedCalls {
 public:
  JittedCalls(const py::object& func, StaticArguments statics)
      : func_(func.ptr()), statics_(std::move(statics)) {}

  // The result, or NotImplemented if nothing is known that was compiled for this call.
  py::object call(const py::tuple& args, const py::dict& kwargs) const {
    if (C10_UNLIKELY(operators_are_followed())) {
      return call_function(args, kwargs);
    }
    CallSignature signature;
    if (at::impl::PythonTorchFunctionTLS::stack_len() > 0 ||
        !read_call(args, kwargs, statics_, signature)) {
      return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    }
    const auto [first, last] = artifacts_.equal_range(signature.hash());
    for (auto found = first; found != last; ++found) {
      const auto artifact = found->second;  // is kept while it runs
      if (!(artifact->signature == signature) || !artifact->fits()) {
        continue;
      }
      const auto inputs = artifact->inputs(signature);
      return artifact->writes_to_shared_memory(inputs) ? call_function(args, kwargs)
                                                       : call_artifact(*artifact, inputs);
    }
    return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  }

  // The positions of the call's tensors in place of them, None in place of other leaves; nothing
  // for arguments of another form.
  py::object numbered(const py::tuple& args, const py::dict& kwargs) const {
    CallSignature signature;
    if (!read_call(args, kwargs, statics_, signature)) {
      return py::none();
    }
    size_t next = 0;
    const auto number = [&](const py::handle& leaf) -> py::object {
      return THPVariable_Check(leaf.ptr()) ? py::object(py::int_(next++)) : py::none();
    };
    py::tuple numbers(args.size());
    for (size_t i = 0; i < args.size(); ++i) {
      numbers[i] = statics_.has_position(static_cast<int64_t>(i), static_cast<int64_t>(args.size()))
                       ? py::none()
                       : changed_leaves(args[i], number);
    }
    py::dict named;
    for (const auto& [name, argument] : kwargs) {
      named[name] = statics_.has_name(name.ptr()) ? py::none() : changed_leaves(argument, number);
    }
    return py::make_tuple(numbers, named);
  }

  // What was compiled for this call. `order` has the graph's tensors by their positions in it.
  void add(const py::tuple& args, const py::dict& kwargs, std::vector<size_t> order,
           const py::object& compiled) {
    auto artifact = std::make_shared<Artifact>();
    if (!read_call(args, kwargs, statics_, artifact->signature)) {
      return;
    }
    artifact->order = std::move(order);
    artifact->compiled = compiled.ptr();
    artifact->closed_over = compiled.attr("closed_over").cast<std::vector<at::Tensor>>();
    for (const auto& tensor : artifact->closed_over) {
      append_tensor(artifact->key_of_closed_over, tensor);
    }
    for (const auto& each : compiled.attr("watched")) {
      const auto watched = py::reinterpret_borrow<py::tuple>(each);
      artifact->watched.push_back({py::object(watched[0]).ptr(), py::object(watched[1]).ptr(),
                                   py::object(watched[2]).ptr()});
    }
    artifact->written = compiled.attr("written").cast<std::vector<size_t>>();
    artifact->kernel = reinterpret_cast<CompiledKernel>(compiled.attr("kernel").cast<uintptr_t>());
    artifact->outputs = compiled.attr("results").cast<size_t>();
    artifact->backward = plan_of(compiled.attr("backward_plan"));
    const py::object result = compiled.attr("plain_result");
    artifact->result = result.is_none() ? nullptr : result.ptr();
    for (auto* object : artifact->signature.objects) {
      artifact->compared.push_back(py::reinterpret_borrow<py::object>(object));
    }
    artifact->signature.tensors.clear();
    const auto hash = artifact->signature.hash();
    artifacts_.emplace(hash, std::move(artifact));
  }

 private:
  py::object call_function(const py::tuple& args, const py::dict& kwargs) const {
    return called(py::reinterpret_borrow<py::object>(func_), args, kwargs);
  }

  PyObject* func_;
  StaticArguments statics_;
  std::unordered_multimap<size_t, std::shared_ptr<const Artifact>> artifacts_;
};

}  // namespace

void bind_jitted_calls(py::module_& module) {
  module.def("run_kernel", [](uintptr_t kernel, size_t outputs, const py::list& tensors,
                              const std::vector<size_t>& written) {
    Inputs inputs;
    for (const auto& tensor : tensors) {
      inputs.push_back(&THPVariable_Unpack(tensor.ptr()));
    }
    return as_list(run_kernel(reinterpret_cast<CompiledKernel>(kernel), outputs, inputs, written));
  });
  py::class_<Slot>(module, "Slot").def(py::init<size_t>());
  py::class_<JittedCalls>(module, "JittedCalls")
      .def(py::init([](const py::object& func, std::vector<int64_t> positions,
                       std::vector<std::string> names) {
        return JittedCalls(func, {std::move(positions), std::move(names)});
      }))
      .def("call", &JittedCalls::call)
      .def("numbered", &JittedCalls::numbered)
      .def("add", &JittedCalls::add);
}

}  // namespace functorch_ext
