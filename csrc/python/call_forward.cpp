#include "python/call_forward.h"

#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <memory>
#include <vector>

#include "autodiff/forward.h"
#include "python/frames.h"
#include "python/noted_errors.h"
#include "python/objects.h"
#include "python/plain_trees.h"
#include "python/recorded_after_dispatch.h"

namespace py = pybind11;

namespace functorch_ext {

namespace {

// The tensors of two trees of the same structure, where each pair can be differentiated.
struct Duals {
  std::vector<at::Tensor> primals;
  std::vector<at::Tensor> tangents;

  bool collect(const py::handle& primal, const py::handle& tangent) {
    return all_pairs(primal, tangent, [&](const py::handle& leaf, const py::handle& other) {
      if (!THPVariable_Check(leaf.ptr()) || !THPVariable_Check(other.ptr())) {
        return false;
      }
      primals.push_back(THPVariable_Unpack(leaf.ptr()));
      tangents.push_back(THPVariable_Unpack(other.ptr()));
      return fits();
    });
  }

 private:
  bool fits() const {
    const auto& primal = primals.back();
    const auto& tangent = tangents.back();
    return (primal.is_floating_point() || primal.is_complex()) &&
           primal.dtype() == tangent.dtype() && !primal.is_nested() && !tangent.is_nested() &&
           !primal.unsafeGetTensorImpl()->has_symbolic_sizes_strides() &&
           !tangent.unsafeGetTensorImpl()->has_symbolic_sizes_strides() &&
           primal.sizes() == tangent.sizes();
  }
};

}  // namespace

py::object call_forward(const py::object& func, const py::object& primals,
                        const py::object& tangents, bool strict, const py::object& finish) {
  Duals duals;
  if (!PyTuple_CheckExact(primals.ptr()) || !duals.collect(primals, tangents) ||
      duals.primals.empty() || records_before_dispatch()) {
    return py::reinterpret_borrow<py::object>(Py_NotImplemented);
  }
  refuse_torchscript();
  register_forward_decompositions();

  const auto frame = std::make_shared<ForwardFrame>(duals.primals);
  const FrameEnd end(*frame);
  const auto arguments = py::reinterpret_borrow<py::tuple>(
      with_leaves(primals, frame->make_dual(duals.primals, duals.tangents)));
  return noting_errors([&]() -> py::object {
    const auto output = called(func, arguments, {});
    std::vector<at::Tensor> values;
    std::vector<at::Tensor> directions;
    const bool plain = all_leaves(output, [&](const py::handle& leaf) {
      if (!THPVariable_Check(leaf.ptr())) {
        return false;
      }
      auto [value, direction] = frame->unpack(THPVariable_Unpack(leaf.ptr()));
      values.push_back(std::move(value));
      directions.push_back(std::move(direction));
      return !strict || directions.back().defined();
    });
    if (!plain || values.empty()) {
      return finish(frame, output);
    }
    frame->exit();
    for (size_t i = 0; i < values.size(); ++i) {
      if (!directions[i].defined()) {
        const c10::AutoGradMode without_grad(false);
        directions[i] = at::zeros_like(values[i]);
      }
    }
    return py::make_tuple(with_leaves(output, values), with_leaves(output, directions));
  });
}

}  // namespace functorch_ext
