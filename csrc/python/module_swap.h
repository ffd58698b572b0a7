#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace functorch_ext {

// A value that goes to one place in a module's tables.
struct SwappedEntry {
  pybind11::dict table;
  pybind11::str name;
  pybind11::object key;  // what the caller of functional_call names it
  pybind11::object value;
  pybind11::object before = {};  // what was there; null: nothing was
};

// Values in place of a module's own, until they are put back.
//
// A module has one set of tables for all threads. So while a thread has swapped some of them,
// others that would read or swap the same wait.
class Swap {
 public:
  Swap(pybind11::object root, std::vector<SwappedEntry> entries);
  ~Swap();
  Swap(const Swap&) = delete;
  Swap& operator=(const Swap&) = delete;

  // Puts the module's own back, and then hands tensors that it assigned meanwhile to `given`.
  void undo(const pybind11::dict& given);

 private:
  friend class OtherThreads;

  // Puts the module's own back, and returns what was there instead; nothing if that is done.
  std::vector<pybind11::object> put_back();

  const pybind11::object root_;
  std::vector<SwappedEntry> entries_;
  const void* const thread_;
  const uint64_t serial_;
  bool in_place_ = true;
};

// Waits while another thread has swapped some table of the module, or of one inside it. Raises if
// that would take forever.
void wait_for_other_threads(const pybind11::object& root);

// How many seconds one call of another thread may keep this one waiting before that is forever.
void set_longest_wait(double seconds);

}  // namespace functorch_ext
