#include "python/module_swap.h"

#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "engine/thread_state.h"
#include "python/module_tables.h"

namespace py = pybind11;

namespace functorch_ext {

using Clock = std::chrono::steady_clock;

// The swaps of all threads, and who waits for whom. The GIL guards them.
class OtherThreads {
 public:
  static OtherThreads& get() {
    static auto* const instance = new OtherThreads();  // threads may outlive statics
    return *instance;
  }

  static const void* this_thread() {
    return &thread_state();
  }

  void add(const Swap& swap) {
    swaps_.push_back(&swap);
  }

  void remove(const Swap& swap) {
    swaps_.erase(std::find(swaps_.rbegin(), swaps_.rend(), &swap).base() - 1);
    if (!waiting_for_.empty()) {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++ended_;
      one_ended_.notify_all();
    }
  }

  // Until no other thread has swapped what is in the module, and none reads what is to be swapped.
  void wait(const py::object& root, const std::vector<SwappedEntry>& entries) {
    uint64_t serial = 0;
    Clock::time_point since;
    while (const Swap* other = conflicting(root, entries)) {
      if (std::exchange(serial, other->serial_) != other->serial_) {
        since = Clock::now();
      }
      if (waits_for_this_thread(other->thread_) || Clock::now() - since > longest_wait_) {
        raise(root);
      }
      waiting_for_[this_thread()] = other->thread_;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        const auto seen = ended_;
        const py::gil_scoped_release no_gil;
        one_ended_.wait_for(lock, std::chrono::milliseconds(100), [&] { return ended_ != seen; });
        lock.unlock();  // before the GIL is taken
      }
      waiting_for_.erase(this_thread());
      if (PyErr_CheckSignals() != 0) {
        throw py::error_already_set();
      }
    }
  }

  uint64_t next_serial() {
    return ++serial_;
  }
  void set_longest_wait(double seconds) {
    longest_wait_ =
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

 private:
  // The tables that a call of the module may read.
  static std::vector<PyObject*> tables_in(const py::object& root) {
    std::vector<PyObject*> found;
    any_module({root}, [&](const ModulePath&, const Tables& tables) {
      found.insert(found.end(), {tables.parameters().ptr(), tables.buffers().ptr(),
                                 tables.modules().ptr(), tables.state().ptr()});
      return false;
    });
    std::sort(found.begin(), found.end());
    return found;
  }

  static bool reads(const std::vector<PyObject*>& tables,
                    const std::vector<SwappedEntry>& entries) {
    return std::any_of(entries.begin(), entries.end(), [&](const SwappedEntry& entry) {
      return std::binary_search(tables.begin(), tables.end(), entry.table.ptr());
    });
  }

  const Swap* conflicting(const py::object& root, const std::vector<SwappedEntry>& entries) const {
    std::vector<PyObject*> tables;
    for (const auto* swap : swaps_) {
      if (swap->thread_ == this_thread()) {
        continue;
      }
      if (tables.empty()) {
        tables = tables_in(root);
      }
      if (reads(tables, swap->entries_) || reads(tables_in(swap->root_), entries)) {
        return swap;
      }
    }
    return nullptr;
  }

  bool waits_for_this_thread(const void* thread) const {
    for (auto next = waiting_for_.find(thread); next != waiting_for_.end();
         next = waiting_for_.find(next->second)) {
      if (next->second == this_thread()) {
        return true;
      }
    }
    return false;
  }

  [[noreturn]] static void raise(const py::object& root) {
    const auto name = py::type::of(root).attr("__name__").cast<std::string>();
    throw std::runtime_error(
        "functorch_ext.functional_call: another thread is inside a functional_call of this " +
        name +
        " and doesn't come out of it: perhaps it waits for this thread. A module can be called "
        "with "
        "other tensors by one thread at a time. Give each thread a module of its own "
        "(copy.deepcopy(module)).");
  }

  std::vector<const Swap*> swaps_;
  std::unordered_map<const void*, const void*> waiting_for_;  // by thread
  uint64_t serial_ = 0;
  Clock::duration longest_wait_ = std::chrono::seconds(60);

  std::mutex mutex_;
  std::condition_variable one_ended_;
  uint64_t ended_ = 0;  // guarded by the mutex
};

Swap::Swap(py::object root, std::vector<SwappedEntry> entries)
    : root_(std::move(root)),
      entries_(std::move(entries)),
      thread_(OtherThreads::this_thread()),
      serial_(OtherThreads::get().next_serial()) {
  OtherThreads::get().wait(root_, entries_);
  OtherThreads::get().add(*this);
  for (auto& entry : entries_) {
    entry.before =
        py::reinterpret_borrow<py::object>(PyDict_GetItem(entry.table.ptr(), entry.name.ptr()));
  }
  for (const auto& entry : entries_) {
    PyDict_SetItem(entry.table.ptr(), entry.name.ptr(), entry.value.ptr());
  }
}

Swap::~Swap() {
  put_back();
}

void Swap::undo(const py::dict& given) {
  const auto after = put_back();
  for (size_t i = 0; i < after.size(); ++i) {
    const auto& [table, name, key, value, before] = entries_[i];
    if (after[i] && !after[i].is(value) && THPVariable_Check(after[i].ptr()) &&
        PyDict_Contains(given.ptr(), key.ptr()) == 1) {
      given[key] = after[i];
    }
  }
}

// Nothing in here runs Python code: names are strings, and what is overwritten lives on.
std::vector<py::object> Swap::put_back() {
  std::vector<py::object> after;
  if (!std::exchange(in_place_, false)) {
    return after;
  }
  after.reserve(entries_.size());
  for (const auto& entry : entries_) {
    after.push_back(
        py::reinterpret_borrow<py::object>(PyDict_GetItem(entry.table.ptr(), entry.name.ptr())));
  }
  for (const auto& entry : entries_) {
    if (entry.before) {
      PyDict_SetItem(entry.table.ptr(), entry.name.ptr(), entry.before.ptr());
    } else if (PyDict_Contains(entry.table.ptr(), entry.name.ptr()) == 1) {
      PyDict_DelItem(entry.table.ptr(), entry.name.ptr());
    }
  }
  OtherThreads::get().remove(*this);
  return after;
}

void wait_for_other_threads(const py::object& root) {
  OtherThreads::get().wait(root, {});
}

void set_longest_wait(double seconds) {
  OtherThreads::get().set_longest_wait(seconds);
}

}  // namespace functorch_ext
