#include "python/switch.h"

#include <structmember.h>

#include "python/recorded_after_dispatch.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// A type of the C interface rather than of pybind11, whose calls cost as much as a frame of Python.
struct Switch {
  PyObject_HEAD vectorcallfunc vectorcall;
  bool (*takes_plain)();
  PyObject* plain;
  PyObject* ours;
  PyObject* attributes;  // its __dict__: the name, docstring and __wrapped__ of `plain`
};

Switch* as_switch(PyObject* self) {
  return reinterpret_cast<Switch*>(self);
}

PyObject* call_switched(PyObject* self, PyObject* const* args, size_t count, PyObject* names) {
  const auto* of = as_switch(self);
  return PyObject_Vectorcall(of->takes_plain() ? of->plain : of->ours, args, count, names);
}

PyObject* bind(PyObject* self, PyObject* object, PyObject*) {
  if (object) {
    return PyMethod_New(self, object);
  }
  return Py_NewRef(self);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(as_switch(self)->plain);
  Py_VISIT(as_switch(self)->ours);
  Py_VISIT(as_switch(self)->attributes);
  return 0;
}

int clear(PyObject* self) {
  Py_CLEAR(as_switch(self)->plain);
  Py_CLEAR(as_switch(self)->ours);
  Py_CLEAR(as_switch(self)->attributes);
  return 0;
}

void deallocate(PyObject* self) {
  auto* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  clear(self);
  type->tp_free(self);
  Py_DECREF(type);
}

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Switch, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Switch, attributes), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"__dict__", &PyObject_GenericGetDict, &PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <class Function>
void* address(Function* function) {
  return reinterpret_cast<void*>(function);
}

PyType_Slot slots[] = {
    {Py_tp_call, address(&PyVectorcall_Call)},
    {Py_tp_descr_get, address(&bind)},
    {Py_tp_traverse, address(&traverse)},
    {Py_tp_clear, address(&clear)},
    {Py_tp_dealloc, address(&deallocate)},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, nullptr},
};

PyType_Spec spec = {"functorch_ext._C.Switch", sizeof(Switch), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                        Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                    slots};

PyTypeObject* switch_type() {
  static auto* type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  return type;
}

PyObject* idle(PyObject*, PyObject*) {
  return Py_NewRef(is_idle() ? Py_True : Py_False);
}

PyMethodDef idle_definition = {"is_idle", &idle, METH_NOARGS, nullptr};

bool has_no_level() {
  return Level::count() == 0 && !(is_differentiating() && records_before_dispatch());
}

py::object make_switch(bool (*takes_plain)(), const py::function& plain, const py::function& ours) {
  auto* made = PyObject_GC_New(Switch, switch_type());
  if (!made) {
    throw py::error_already_set();
  }
  made->vectorcall = &call_switched;
  made->takes_plain = takes_plain;
  made->plain = Py_NewRef(plain.ptr());
  made->ours = Py_NewRef(ours.ptr());
  made->attributes = PyDict_New();
  auto* object = reinterpret_cast<PyObject*>(made);
  PyObject_GC_Track(object);
  return py::reinterpret_steal<py::object>(object);
}

}  // namespace

void bind_switch(py::module_& module) {
  if (!switch_type()) {
    throw py::error_already_set();
  }
  module.def("switch", [](const py::function& plain, const py::function& ours) {
    return make_switch(&is_idle, plain, ours);
  });
  module.def("switch_at_levels", [](const py::function& plain, const py::function& ours) {
    return make_switch(&has_no_level, plain, ours);
  });
  module.attr("is_idle") =
      py::reinterpret_steal<py::object>(PyCFunction_New(&idle_definition, nullptr));
}

}  // namespace functorch_ext
