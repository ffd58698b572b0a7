#include "python/observation.h"

#include <ATen/SequenceNumber.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <ATen/record_function.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <pybind11/stl.h>
#include <torch/csrc/profiler/orchestration/observer.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/stack.h"
#include "engine/thread_state.h"
#include "engine/wrapper.h"
#include "python/planes.h"
#include "releases/debug_info.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// A call of an operator, a node of autograd's graph that runs backward, or a custom function.
struct Event {
  std::string name;
  bool is_operator = false;
  bool is_node = false;
  int64_t parent = -1;  // the event inside which it happens
  Plane plane;          // the deepest among its arguments and results
  bool batched = false;
  bool in_rule = false;    // part of the rule for an operator of the same level
  bool inherits = false;   // no other code of Python runs than when `parent` began
  py::object where;        // what locate() returned; of an event that inherits, None
  int64_t forward = -1;    // of a node: the event that recorded it
  std::string loop;        // what was said of a loop over samples
  double seconds = 0;      // with all that happens inside
  int64_t allocated = -1;  // bytes; -1 if that isn't known
  bool failed = false;

  // While it lasts: Python's frame, which is compared alone, and what had been allocated before.
  const void* frame = nullptr;
  int64_t allocated_before = 0;
};

// A clock that stands still while an observer works.
class Clock {
 public:
  static double now() {
    return running() - paused;
  }
  class Pause {
   public:
    Pause() : start_(running()) {}
    ~Pause() {
      paused += running() - start_;
    }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    const double start_;
  };

 private:
  static double running() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(time).count();
  }
  static thread_local double paused;
};
thread_local double Clock::paused = 0;

// What PyTorch's allocators report, to a profiler that is off otherwise.
struct Memory final : torch::profiler::impl::ProfilerStateBase {
  Memory()
      : ProfilerStateBase(
            torch::profiler::impl::ProfilerConfig(torch::profiler::impl::ProfilerState::Disabled)) {
  }
  torch::profiler::impl::ActiveProfilerType profilerType() override {
    return torch::profiler::impl::ActiveProfilerType::NONE;
  }
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    const auto now = live += size;
    allocated += std::max<int64_t>(size, 0);
    auto before = peak.load();
    while (before < now && !peak.compare_exchange_weak(before, now)) {
    }
  }
  bool memoryProfilingEnabled() const override {
    return true;
  }

  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> allocated{0};
};

constexpr std::string_view slot_name = "functorch_ext::Observation";
const c10::DebugInfoKind slot = own_debug_info(slot_name);

class Observation final : public c10::DebugInfoBase,
                          public std::enable_shared_from_this<Observation> {
 public:
  // locate() says where the program is; check(index, is_backward, inputs, outputs) sees the tensors
  // of each operator that the program or a node calls.
  Observation(py::object locate, py::object check)
      : locate_(std::move(locate)), check_(std::move(check)) {}

  py::object run(const py::function& body) {
    // One inside another: the inner one passes on what it sees.
    if (auto* outer = running()) {
      outer_ = outer->shared_from_this();
    }
    const Callbacks callbacks(/*needed=*/!outer_);
    const c10::DebugInfoGuard observed(slot, shared_from_this());
    std::optional<c10::DebugInfoGuard> measured;
    // A profiler that runs wants the reports for itself.
    if (!c10::ThreadLocalDebugInfo::get(c10::DebugInfoKind::PROFILER_STATE)) {
      memory_ = std::make_shared<Memory>();
      measured.emplace(c10::DebugInfoKind::PROFILER_STATE, memory_);
    }
    const auto start = Clock::now();
    auto result = body();
    seconds_ = Clock::now() - start;
    return result;
  }

  static Observation* running() {
    return static_cast<Observation*>(c10::ThreadLocalDebugInfo::get(slot));
  }

  void note_loop(const std::string& message) {
    if (outer_) {
      outer_->note_loop(message);
    }
    const auto parent = innermost();
    if (parent >= 0) {
      auto& event = events_[parent];
      const bool is_function = !event.is_operator && !event.is_node;
      if (is_function || message.find(event.name) != std::string::npos) {
        event.loop = message;
        return;
      }
    }
    Event event;
    event.parent = parent;
    event.where = locate_();
    event.loop = message;
    events_.push_back(std::move(event));
  }

  const std::vector<Event>& events() const {
    return events_;
  }
  double seconds() const {
    return seconds_;
  }
  std::optional<int64_t> peak() const {
    return memory_ ? std::optional(memory_->peak.load()) : std::nullopt;
  }
  const std::string& error() const {
    return error_;
  }

 private:
  class Callbacks {
   public:
    explicit Callbacks(bool needed)
        : handle_(
              needed ? at::addThreadLocalCallback(at::RecordFunctionCallback(&on_start, &on_end)
                                                      .needsInputs(true)
                                                      .needsOutputs(true)
                                                      .scopes({at::RecordScope::FUNCTION,
                                                               at::RecordScope::BACKWARD_FUNCTION}))
                     : at::INVALID_CALLBACK_HANDLE) {}
    ~Callbacks() {
      if (handle_ != at::INVALID_CALLBACK_HANDLE) {
        at::removeCallback(handle_);
      }
    }
    Callbacks(const Callbacks&) = delete;
    Callbacks& operator=(const Callbacks&) = delete;

   private:
    const at::CallbackHandle handle_;
  };

  struct Context final : at::ObserverContext {
    std::shared_ptr<Observation> observation;
    std::unique_ptr<Context> outer;
    size_t index = 0;
    double start = 0;
    int exceptions = 0;
    std::vector<c10::IValue> inputs;
  };

  static std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
    auto* observation = running();
    return observation ? observation->start(function) : nullptr;
  }
  static void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
    if (context) {
      wait_for_devices(function);
      for (auto* each = static_cast<Context*>(context); each; each = each->outer.get()) {
        each->observation->end(function, *each);
      }
    }
  }

  std::unique_ptr<Context> start(const at::RecordFunction& function) {
    auto context = std::make_unique<Context>();
    if (outer_) {
      context->outer = outer_->start(function);
    }
    {
      const Clock::Pause pause;
      const py::gil_scoped_acquire gil;
      guarded([&] {
        context->index = begin(function);
        context->observation = shared_from_this();
        if (!check_.is_none()) {
          context->inputs.assign(function.inputs().begin(), function.inputs().end());
        }
        context->exceptions = std::uncaught_exceptions();
      });
    }
    if (!context->observation) {
      return std::move(context->outer);
    }
    context->start = Clock::now();
    return context;
  }

  void end(const at::RecordFunction& function, Context& context) {
    const auto seconds = Clock::now() - context.start;
    const Clock::Pause pause;
    const py::gil_scoped_acquire gil;
    guarded([&] { finish(function, context, seconds); });
  }

  // Observers mustn't raise: what goes wrong is kept, and an interrupt is raised again later.
  template <class Function>
  void guarded(Function&& function) {
    const at::DisableRecordFunctionGuard unobserved;
    try {
      function();
    } catch (py::error_already_set& error) {
      if (error.matches(PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
      } else {
        error_ = error.what();
      }
    } catch (const std::exception& error) {
      error_ = error.what();
    }
  }

  size_t begin(const at::RecordFunction& function) {
    Event event;
    event.parent = innermost();
    event.is_node = function.scope() == at::RecordScope::BACKWARD_FUNCTION;
    const auto name = function.operator_name();
    event.is_operator = name.has_value();
    event.name = name ? toString(*name) : function.name();
    look_at(event, function.inputs());
    event.in_rule = event.plane.depth > 0 &&
                    reinterpret_cast<uintptr_t>(thread_state().computing) == event.plane.level;
    const auto thread = at::RecordFunction::currentThreadId();
    event.frame = PyEval_GetFrame();
    event.inherits =
        event.parent >= 0 && (!event.frame || event.frame == events_[event.parent].frame);
    event.where = event.inherits || !event.frame ? py::none() : locate_();
    const auto index = static_cast<int64_t>(events_.size());
    if (event.is_node) {
      event.forward = recorded_by(function.forwardThreadId(), function.seqNr());
    } else if (event.is_operator) {
      recorded_[thread][static_cast<int64_t>(at::sequence_number::peek())] = index;
    }
    event.allocated_before = memory_ ? memory_->allocated.load() : 0;
    events_.push_back(std::move(event));
    open_[thread].push_back(index);
    return index;
  }

  void finish(const at::RecordFunction& function, Context& context, double seconds) {
    auto& event = events_[context.index];
    event.seconds = seconds;
    event.failed = std::uncaught_exceptions() > context.exceptions;
    if (memory_) {
      event.allocated = memory_->allocated.load() - event.allocated_before;
    }
    auto& open = open_[function.threadId()];
    open.erase(std::remove(open.begin(), open.end(), static_cast<int64_t>(context.index)),
               open.end());
    look_at(event, function.outputs());
    const auto inside = what_is_around(event);
    if (!check_.is_none() && !event.failed && event.is_operator && !inside.an_operator &&
        computes_numbers(function, context.inputs)) {
      check_(context.index, inside.a_node, tensors_of(context.inputs),
             tensors_of(function.outputs()));
    }
  }

  // Views hold what was there before, and new memory holds nothing yet. Their results mustn't even
  // become objects of Python: that of detach may be about to become an object of a subclass.
  static bool computes_numbers(const at::RecordFunction& function,
                               c10::ArrayRef<c10::IValue> inputs) {
    const auto op = c10::Dispatcher::singleton().findOp(*function.operator_name());
    if (!op) {
      return true;
    }
    const auto& name = op->operator_name().name;
    if (name == "aten::to") {
      return !is_first(inputs, function.outputs());  // of another dtype, a number may be another
    }
    const bool is_new = name.rfind("aten::empty", 0) == 0 || name.rfind("aten::new_empty", 0) == 0;
    if (is_new || op->hasTag(at::Tag::inplace_view)) {
      return false;
    }
    const auto& results = op->schema().returns();
    return std::any_of(results.begin(), results.end(), [](const c10::Argument& result) {
      return !result.alias_info() || result.alias_info()->isWrite();
    });
  }

  // Does an operator return its first argument as it is?
  static bool is_first(c10::ArrayRef<c10::IValue> inputs, c10::ArrayRef<c10::IValue> outputs) {
    return !inputs.empty() && !outputs.empty() && inputs[0].isTensor() && outputs[0].isTensor() &&
           inputs[0].toTensor().is_same(outputs[0].toTensor());
  }

  // Takes note of the deepest plane.
  static void look_at(Event& event, c10::ArrayRef<c10::IValue> values) {
    for_each_tensor_in(values, [&](const at::Tensor& tensor) {
      if (!is_wrapper(tensor) || !wrapper_of(tensor)->level().is_running()) {
        return;
      }
      const auto& level = wrapper_of(tensor)->level();
      if (level.depth > event.plane.depth) {
        event.plane = plane_of(level);
        event.batched = false;
      }
      event.batched =
          event.batched || (level.depth == event.plane.depth && wrapper_of(tensor)->is_batched());
    });
  }

  // Autograd's engine adds up gradients in the evaluation of a node, ahead of the node.
  static bool is_of_engine(const Event& event) {
    return event.name.rfind("autograd::engine::", 0) == 0;
  }

  struct Around {
    bool an_operator = false;
    bool a_node = false;
  };
  Around what_is_around(const Event& event) const {
    Around around;
    for (auto parent = event.parent; parent >= 0; parent = events_[parent].parent) {
      around.an_operator = around.an_operator || events_[parent].is_operator;
      around.a_node = around.a_node || events_[parent].is_node || is_of_engine(events_[parent]);
    }
    return around;
  }

  // The operator during which autograd numbered a node: the last that began before.
  int64_t recorded_by(uint64_t thread, int64_t number) const {
    const auto found = recorded_.find(thread);
    if (found == recorded_.end() || number < 0) {
      return -1;
    }
    const auto after = found->second.upper_bound(number);
    return after == found->second.begin() ? -1 : std::prev(after)->second;
  }

  // The innermost event that this thread is in.
  int64_t innermost() const {
    const auto found = open_.find(at::RecordFunction::currentThreadId());
    return found == open_.end() || found->second.empty() ? -1 : found->second.back();
  }

  static std::vector<at::Tensor> tensors_of(c10::ArrayRef<c10::IValue> values) {
    std::vector<at::Tensor> tensors;
    for_each_tensor_in(values, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
    return tensors;
  }

  // Kernels of a GPU run on after the operator has returned.
  static void wait_for_devices(const at::RecordFunction& function) {
    for_each_tensor_in(function.outputs(), [](const at::Tensor& tensor) {
      const auto device = tensor.device();
      if (device.is_cuda() || device.is_xpu()) {
        c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
      }
    });
  }

  const py::object locate_;
  const py::object check_;
  // All of it under the GIL.
  std::vector<Event> events_;
  // Of each thread: the events that it is in, and those that began at a number of autograd's.
  std::map<uint64_t, std::vector<int64_t>> open_;
  std::map<uint64_t, std::map<int64_t, int64_t>> recorded_;
  std::shared_ptr<Memory> memory_;
  double seconds_ = 0;
  std::string error_;
  std::shared_ptr<Observation> outer_;
};

}  // namespace

bool note_observed_loop(const std::string& message) {
  auto* observation = Observation::running();
  if (observation) {
    observation->note_loop(message);
  }
  return observation;
}

void bind_observation(py::module_& module) {
  py::class_<Event>(module, "Event")
      .def_readonly("name", &Event::name)
      .def_readonly("is_operator", &Event::is_operator)
      .def_readonly("is_node", &Event::is_node)
      .def_readonly("parent", &Event::parent)
      .def_readonly("batched", &Event::batched)
      .def_readonly("in_rule", &Event::in_rule)
      .def_readonly("inherits", &Event::inherits)
      .def_readonly("where", &Event::where)
      .def_readonly("forward", &Event::forward)
      .def_readonly("loop", &Event::loop)
      .def_readonly("seconds", &Event::seconds)
      .def_readonly("allocated", &Event::allocated)
      .def_readonly("failed", &Event::failed)
      .def_property_readonly("level", [](const Event& event) { return event.plane.level; })
      .def_property_readonly("plane", [](const Event& event) { return described(event.plane); });
  py::class_<Observation, std::shared_ptr<Observation>>(module, "Observation")
      .def(py::init([](py::object locate, py::object check) {
        // A thread of autograd's may be the last to let go of it.
        return std::shared_ptr<Observation>(new Observation(std::move(locate), std::move(check)),
                                            [](Observation* observation) {
                                              const py::gil_scoped_acquire gil;
                                              delete observation;
                                            });
      }))
      .def("run", &Observation::run)
      .def("events",
           [](const Observation& observation) {
             py::list events;
             for (const auto& event : observation.events()) {
               events.append(event);  // a copy
             }
             return events;
           })
      .def_property_readonly("seconds", &Observation::seconds)
      .def_property_readonly("peak", &Observation::peak)
      .def_property_readonly("error", &Observation::error);
  module.def("note_observed_loop", &note_observed_loop);
}

}  // namespace functorch_ext
