#include "python/call_signature.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/hash.h>
#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <cstring>

#include "python/plain_trees.h"

namespace functorch_ext {

namespace {

enum Mark : int64_t { in_dict = 1, in_list, in_tuple, object_leaf, static_leaf };

constexpr c10::DispatchKeySet autocast_keys = c10::autocast_dispatch_keyset;

bool is_value(PyObject* leaf) {
  return leaf == Py_None || PyBool_Check(leaf) || PyLong_CheckExact(leaf) ||
         PyFloat_CheckExact(leaf) || PyUnicode_CheckExact(leaf) || PyComplex_CheckExact(leaf);
}

bool append_leaf(CallSignature& signature, PyObject* leaf) {
  if (THPVariable_CheckExact(leaf)) {
    const auto& tensor = THPVariable_Unpack(leaf);
    signature.tensors.push_back(&tensor);
    return append_tensor(signature.numbers, tensor);
  }
  signature.numbers.push_back(object_leaf);
  signature.objects.push_back(leaf);
  return is_value(leaf);
}

bool append_tree(CallSignature& signature, PyObject* tree, int depth = 0) {
  if (depth > deepest_plain_tree) {
    return false;
  }
  if (PyTuple_CheckExact(tree) || PyList_CheckExact(tree)) {
    const auto size = PySequence_Fast_GET_SIZE(tree);
    signature.numbers.push_back(PyTuple_CheckExact(tree) ? in_tuple : in_list);
    signature.numbers.push_back(size);
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (!append_tree(signature, PySequence_Fast_GET_ITEM(tree, i), depth + 1)) {
        return false;
      }
    }
    return true;
  }
  if (PyDict_CheckExact(tree)) {
    signature.numbers.push_back(in_dict);
    signature.numbers.push_back(PyDict_GET_SIZE(tree));
    PyObject *key = nullptr, *leaf = nullptr;
    for (Py_ssize_t position = 0; PyDict_Next(tree, &position, &key, &leaf);) {
      signature.objects.push_back(key);
      if (!is_value(key) || !append_tree(signature, leaf, depth + 1)) {
        return false;
      }
    }
    return true;
  }
  return append_leaf(signature, tree);
}

bool append_static(CallSignature& signature, PyObject* value) {
  signature.numbers.push_back(static_leaf);
  signature.objects.push_back(value);
  const bool hashable = PyObject_Hash(value) != -1;
  PyErr_Clear();
  return hashable;
}

// The program's choices between speed and exactness, and the threads that kernels are compiled for.
int64_t choices() {
  const auto& context = at::globalContext();
  const auto precision = [&](at::Float32Backend backend) {
    return static_cast<int64_t>(context.float32Precision(backend, at::Float32Op::MATMUL));
  };
  return int64_t{context.deterministicAlgorithms()} |
         int64_t{context.deterministicAlgorithmsWarnOnly()} << 1 |
         int64_t{context.deterministicFillUninitializedMemory()} << 2 |
         precision(at::Float32Backend::CUDA) << 8 | precision(at::Float32Backend::MKLDNN) << 16 |
         static_cast<int64_t>(at::get_num_threads()) << 32;
}

// The modes of the thread that decide what operators do.
void append_modes(c10::SmallVectorImpl<int64_t>& numbers) {
  const auto dtype = c10::typeMetaToScalarType(at::get_default_dtype());
  const auto local = c10::impl::tls_local_dispatch_key_set();
  numbers.push_back(int64_t{c10::GradMode::is_enabled()} |
                    int64_t{c10::InferenceMode::is_enabled()} << 1 |
                    static_cast<int64_t>(dtype) << 8);
  numbers.push_back(choices());
  numbers.push_back(static_cast<int64_t>(local.included_.raw_repr()));
  numbers.push_back(static_cast<int64_t>(local.excluded_.raw_repr()));
  if ((local.excluded_ & autocast_keys) != autocast_keys) {
    numbers.push_back(static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCPU)));
    numbers.push_back(static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCUDA)));
  }
}

// 1, 1.0 and True are equal to Python, but not to a program; nor are 0.0 and -0.0.
bool are_same(PyObject* one, PyObject* other) {
  if (one == other) {
    return true;
  }
  if (Py_TYPE(one) != Py_TYPE(other)) {
    return false;
  }
  if (PyFloat_CheckExact(one)) {
    const double a = PyFloat_AS_DOUBLE(one), b = PyFloat_AS_DOUBLE(other);
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
  const int equal = PyObject_RichCompareBool(one, other, Py_EQ);
  PyErr_Clear();
  return equal == 1;
}

}  // namespace

size_t CallSignature::hash() const {
  size_t result = objects.size();
  for (const auto number : numbers) {
    result = c10::hash_combine(result, static_cast<size_t>(number));
  }
  for (auto* object : objects) {
    result = c10::hash_combine(result, static_cast<size_t>(PyObject_Hash(object)));
  }
  return result;
}

bool CallSignature::operator==(const CallSignature& other) const {
  return numbers == other.numbers &&
         std::equal(objects.begin(), objects.end(), other.objects.begin(), other.objects.end(),
                    are_same);
}

bool StaticArguments::has_position(int64_t position, int64_t count) const {
  return std::any_of(positions.begin(), positions.end(),
                     [&](int64_t each) { return each == position || each == position - count; });
}

bool StaticArguments::has_name(PyObject* name) const {
  return std::any_of(names.begin(), names.end(), [&](const std::string& each) {
    return PyUnicode_CompareWithASCIIString(name, each.c_str()) == 0;
  });
}

bool append_tensor(c10::SmallVectorImpl<int64_t>& numbers, const at::Tensor& tensor) {
  const auto* impl = tensor.unsafeGetTensorImpl();
  if (impl->has_symbolic_sizes_strides() || tensor.layout() != at::kStrided ||
      tensor._fw_grad(0).defined()) {
    return false;
  }
  const auto device = tensor.device();
  const auto sizes = impl->sizes(), strides = impl->strides();
  numbers.push_back(
      static_cast<int64_t>(tensor.scalar_type()) << 8 | static_cast<int64_t>(device.type()) << 16 |
      static_cast<int64_t>(static_cast<uint8_t>(device.index())) << 24 |
      int64_t{impl->requires_grad()} << 32 | static_cast<int64_t>(sizes.size()) << 40);
  numbers.push_back(static_cast<int64_t>(impl->key_set().raw_repr()));
  numbers.append(sizes.begin(), sizes.end());
  numbers.append(strides.begin(), strides.end());
  return true;
}

bool read_call(const pybind11::tuple& args, const pybind11::dict& kwargs,
               const StaticArguments& statics, CallSignature& signature) {
  const auto count = PyTuple_GET_SIZE(args.ptr());
  append_modes(signature.numbers);
  signature.numbers.push_back(count);
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* argument = PyTuple_GET_ITEM(args.ptr(), i);
    const bool fits = statics.has_position(i, count) ? append_static(signature, argument)
                                                     : append_tree(signature, argument);
    if (!fits) {
      return false;
    }
  }
  PyObject *name = nullptr, *argument = nullptr;
  for (Py_ssize_t position = 0; PyDict_Next(kwargs.ptr(), &position, &name, &argument);) {
    signature.objects.push_back(name);
    const bool fits = statics.has_name(name) ? append_static(signature, argument)
                                             : append_tree(signature, argument);
    if (!fits) {
      return false;
    }
  }
  return true;
}

}  // namespace functorch_ext
