#include "python/noted_errors.h"

#include <torch/csrc/Exceptions.h>

namespace py = pybind11;

namespace functorch_ext {

namespace {

// An interrupt, or what ends the program, says all that there is to say.
void note(const py::error_already_set& error) {
  if (error.matches(PyExc_Exception)) {
    const auto trace = error.trace() ? error.trace() : py::object(py::none());
    py::module_::import("functorch_ext._inspect.notes").attr("note")(error.value(), trace);
  }
}

}  // namespace

void raise_with_note() {
  try {
    throw;
  } catch (const py::error_already_set& error) {
    note(error);
    throw;
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const std::exception&) {
    torch::translate_exception_to_python(std::current_exception());
  }
  py::error_already_set error;
  note(error);
  throw error;
}

}  // namespace functorch_ext
