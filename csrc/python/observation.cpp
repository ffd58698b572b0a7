#include "python/observation.h"

#include <ATen/SequenceNumber.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/thread_state.h"
#include "python/observed_costs.h"
#include "python/observed_event.h"
#include "releases/debug_info.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

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
      memory_ = std::make_shared<AllocatedMemory>();
      measured.emplace(c10::DebugInfoKind::PROFILER_STATE, memory_);
    }
    const auto start = UnobservedClock::now();
    auto result = body();
    seconds_ = UnobservedClock::now() - start;
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
    ObservedEvent event;
    event.parent = parent;
    event.where = locate_();
    event.loop = message;
    events_.push_back(std::move(event));
  }

  const std::vector<ObservedEvent>& events() const {
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
      const UnobservedClock::Pause pause;
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
    context->start = UnobservedClock::now();
    return context;
  }

  void end(const at::RecordFunction& function, Context& context) {
    const auto seconds = UnobservedClock::now() - context.start;
    const UnobservedClock::Pause pause;
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
    ObservedEvent event;
    event.parent = innermost();
    event.is_node = function.scope() == at::RecordScope::BACKWARD_FUNCTION;
    const auto name = function.operator_name();
    event.is_operator = name.has_value();
    event.name = name ? toString(*name) : function.name();
    event.look_at(function.inputs());
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
    event.look_at(function.outputs());
    const auto inside = what_is_around(event);
    if (!check_.is_none() && !event.failed && event.is_operator && !inside.an_operator &&
        computes_numbers(function, context.inputs)) {
      check_(context.index, inside.a_node, tensors_in(context.inputs),
             tensors_in(function.outputs()));
    }
  }

  // Autograd's engine adds up gradients in the evaluation of a node, ahead of the node.
  static bool is_of_engine(const ObservedEvent& event) {
    return event.name.rfind("autograd::engine::", 0) == 0;
  }

  struct Around {
    bool an_operator = false;
    bool a_node = false;
  };
  Around what_is_around(const ObservedEvent& event) const {
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

  const py::object locate_;
  const py::object check_;
  // All of it under the GIL.
  std::vector<ObservedEvent> events_;
  // Of each thread: the events that it is in, and those that began at a number of autograd's.
  std::map<uint64_t, std::vector<int64_t>> open_;
  std::map<uint64_t, std::map<int64_t, int64_t>> recorded_;
  std::shared_ptr<AllocatedMemory> memory_;
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
  py::class_<ObservedEvent>(module, "Event")
      .def_readonly("name", &ObservedEvent::name)
      .def_readonly("is_operator", &ObservedEvent::is_operator)
      .def_readonly("is_node", &ObservedEvent::is_node)
      .def_readonly("parent", &ObservedEvent::parent)
      .def_readonly("batched", &ObservedEvent::batched)
      .def_readonly("in_rule", &ObservedEvent::in_rule)
      .def_readonly("inherits", &ObservedEvent::inherits)
      .def_readonly("where", &ObservedEvent::where)
      .def_readonly("forward", &ObservedEvent::forward)
      .def_readonly("loop", &ObservedEvent::loop)
      .def_readonly("seconds", &ObservedEvent::seconds)
      .def_readonly("allocated", &ObservedEvent::allocated)
      .def_readonly("failed", &ObservedEvent::failed)
      .def_property_readonly("level", [](const ObservedEvent& event) { return event.plane.level; })
      .def_property_readonly("plane",
                             [](const ObservedEvent& event) { return described(event.plane); });
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
