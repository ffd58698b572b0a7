#include "autodiff/forward.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/SavedTensorHooks.h>
#include <ATen/ops/_make_dual.h>
#include <ATen/ops/_unpack_dual.h>
#include <ATen/ops/alias.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/resolve_conj.h>
#include <ATen/ops/resolve_neg.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "autodiff/graph.h"
#include "autodiff/plane.h"
#include "autodiff/private_leaf.h"
#include "engine/below_all_levels.h"
#include "engine/torch_func.h"

namespace functorch_ext {

namespace {

using torch::autograd::ForwardADLevel;

// PyTorch has one dual level in the whole process, number 0. The frames of all threads share it:
// the first opens it and the last closes it, unless the user opened it.
//
// Who joins has to keep its tangents apart from those of the first, be that in another thread: the
// function of one may close over tensors of the other. (Nor does closing the level, by which
// tensors that outlive a frame lose their tangents, come when the second frame ends.)
class DualLevel {
 public:
  // Joins; tells whether nobody had it open before.
  static bool open() {
    const std::lock_guard<std::mutex> lock(mutex());
    const bool first = users() == 0 && ForwardADLevel::try_get_by_idx(0) == nullptr;
    if (first) {
      ForwardADLevel::get_next_idx();
      ours() = true;
      begun().store(++transforms_begun, std::memory_order_relaxed);
    }
    ++users();
    return first;
  }
  // Joins if one of our frames has it open.
  static bool join() {
    const std::lock_guard<std::mutex> lock(mutex());
    users() += ours() ? 1 : 0;
    return ours();
  }
  static void close() {
    // The level's end frees tangents, which may wait for the GIL, and who has that may wait for us:
    // so the level lives until the lock is free again.
    std::shared_ptr<ForwardADLevel> level;
    const std::lock_guard<std::mutex> lock(mutex());
    if (--users() == 0 && std::exchange(ours(), false)) {
      begun().store(never, std::memory_order_relaxed);
      level = ForwardADLevel::get_by_idx(0);
      ForwardADLevel::release_idx(0);
    }
  }
  // When the frame began that opened it: whose are the tangents on plane 0.
  static std::atomic<uint64_t>& begun() {
    static std::atomic<uint64_t> number = never;
    return number;
  }
  static constexpr auto never = std::numeric_limits<uint64_t>::max();

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static int64_t& users() {
    static int64_t count = 0;
    return count;
  }
  static bool& ours() {
    static bool opened_by_us = false;
    return opened_by_us;
  }
};

// The tangent, or the value of one from a deeper plane (a basis), as a tensor of the vmap and of
// all around it, which may become batched when its dual tensor is written to: no other tensor knows
// the dual's tangent. But its memory is that of the given one, which functionalize keeps account
// of.
at::Tensor own_tangent(const at::Tensor& tangent, const LevelPtr& level) {
  if (!level || level->computes_operators) {
    return tangent;
  }
  if (!level->is_vmap()) {
    return own_tangent(tangent, next_to(*level));
  }
  const auto depth = depth_of(tangent);
  if (depth == level->depth) {
    return tangent;
  }
  if (depth > level->depth) {
    if (tangent.requires_grad() || tangent._fw_grad(/*level=*/0).defined()) {
      return tangent;  // part of what is differentiated on its own plane, and has to stay it
    }
    const auto* wrapper = wrapper_of(tangent);
    const auto own = own_tangent(wrapper->value(), level);
    return own.is_same(wrapper->value()) ? tangent : wrap(own, wrapper->bdim(), wrapper->level());
  }
  auto own = wrap(own_tangent(tangent, next_to(*level)), no_bdim, *level);
  wrapper_of(own)->set_own(/*readable=*/false);
  return own;
}

// The tangent, or the value of one from a deeper plane, as a tensor of the plane: formulas write to
// tangents, perhaps what another transform differentiates.
at::Tensor lift_below(const at::Tensor& tangent, const LevelPtr& plane) {
  if (plane && depth_of(tangent) > plane->depth) {
    const auto* wrapper = wrapper_of(tangent);
    return wrap(lift_below(wrapper->value(), plane), wrapper->bdim(), wrapper->level());
  }
  return lift_to(tangent, plane);
}

// PyTorch lays a tangent out as its primal is, which can't be where several elements of the primal
// are one in memory, as those of an expanded tensor.
bool may_overlap(const at::Tensor& primal) {
  const auto overlap = at::has_internal_overlap(primal);
  if (overlap != at::MemOverlap::TooHard ||
      primal.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return overlap == at::MemOverlap::Yes;
  }
  // Not if each stride goes beyond all that smaller strides reach, as in a view of each second row.
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t dim = 0; dim < primal.dim(); ++dim) {
    if (primal.size(dim) > 1) {
      dims.emplace_back(primal.stride(dim), primal.size(dim));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t reach = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reach) {
      return true;
    }
    reach += stride * (size - 1);
  }
  return false;
}

at::Tensor without_overlap(const at::Tensor& primal) {
  return may_overlap(primal) ? primal.clone(at::MemoryFormat::Contiguous) : primal;
}

// With its numbers in memory as they are, neither to be conjugated nor to be negated yet.
at::Tensor resolved(const at::Tensor& tensor) {
  return tensor.resolve_conj().resolve_neg();
}

bool have_same_memory(const at::Tensor& tensor, const at::Tensor& other) {
  const auto& plain = below_all_levels(tensor);
  const auto& plain_other = below_all_levels(other);
  return plain.has_storage() && plain_other.has_storage() && plain.is_alias_of(plain_other);
}

}  // namespace

ForwardFrame::ForwardFrame(const std::vector<at::Tensor>& primals, Planes planes)
    : on_plane_(std::in_place, primals),
      outer_forward_mode_(c10::AutogradState::get_tls_state().get_fw_grad_mode()) {
  // What hooks of saved tensors see must not depend on who else runs: a checkpoint's function is
  // computed again at another time. And torch.func's transforms have tangents too, and tensors that
  // can't be differentiated.
  const bool inside_torch_func = torch_func_is_innermost();
  const bool alone = DualLevel::open();
  if (planes == Planes::AsBefore) {
    const auto& plane = thread_state().plane;
    if (!alone && !(plane && plane->stands_for_values())) {
      DualLevel::close();
      TORCH_CHECK_NOT_IMPLEMENTED(
          false,
          "functorch_ext: a function that was pushed forward is computed again inside "
          "another jvp, whose tangents would mix with its own.");
    }
  } else if (!alone || inside_torch_func ||
             !at::SavedTensorDefaultHooks::get_tls_state().stack.empty()) {
    try {
      pushed_.emplace(level_of_values(), /*is_plane=*/true);
    } catch (...) {
      DualLevel::close();
      throw;
    }
  }
  plane_ = thread_state().plane;
  differentiation_.emplace(plane_, Direction::Forward, outer_forward_mode_);
  c10::AutogradState::get_tls_state().set_fw_grad_mode(true);
}

ForwardFrame::~ForwardFrame() {
  exit();
}

void ForwardFrame::exit() {
  if (!running_) {
    return;
  }
  running_ = false;
  c10::AutogradState::get_tls_state().set_fw_grad_mode(outer_forward_mode_);
  differentiation_.reset();
  DualLevel::close();
  if (pushed_) {
    pushed_->exit();
  }
  on_plane_.reset();
  allowed_.reset();
}

std::vector<at::Tensor> ForwardFrame::make_dual(const std::vector<at::Tensor>& primals,
                                                const std::vector<at::Tensor>& tangents) const {
  check_running();
  std::vector<at::Tensor> duals;
  duals.reserve(primals.size());
  for (size_t i = 0; i < primals.size(); ++i) {
    auto tangent = lift_below(own_tangent(tangents[i], plane_), plane_);
    auto primal = lift_to(without_overlap(normal_tensor(primals[i])), plane_);
    // PyTorch's views of dual tensors insist that the two agree in this.
    if (primal.is_conj() != tangent.is_conj() || primal.is_neg() != tangent.is_neg()) {
      primal = resolved(primal);
      tangent = resolved(tangent);
    }
    duals.push_back(at::_make_dual(primal, tangent, 0));
  }
  return duals;
}

std::pair<at::Tensor, at::Tensor> ForwardFrame::unpack(const at::Tensor& output) const {
  check_running();
  if (C10_UNLIKELY(is_of_ended_layer(output))) {
    return unpack(without_ended_layers(output));
  }
  if (depth_of(output) > depth_of(plane_)) {
    // The function closes over a tensor of a deeper plane: so it combines values, duals of this
    // one.
    const auto* wrapper = wrapper_of(output);
    const auto [primal, tangent] = unpack(wrapper->value());
    if (!tangent.defined()) {
      return {output, {}};
    }
    return {wrap(primal, wrapper->bdim(), wrapper->level()),
            wrap(tangent, wrapper->bdim(), wrapper->level())};
  }
  if (!on_plane(output, plane_)) {
    return {output, {}};
  }
  auto [primal, tangent] = at::_unpack_dual(output, /*level=*/0);
  return {strip(primal), tangent.defined() ? strip(tangent) : tangent};
}

// Who kept the frame (a traceback does) finds no tangents any more.
void ForwardFrame::check_running() const {
  TORCH_CHECK(running_, "functorch_ext.jvp: a frame was used after the transform had ended");
}

bool ForwardFrame::join_dual_level() {
  return DualLevel::join();
}

void ForwardFrame::leave_dual_level() {
  DualLevel::close();
}

bool ForwardFrame::tangents_are_constants(at::ArrayRef<at::Tensor> duals) {
  const auto begun = DualLevel::begun().load(std::memory_order_relaxed);
  std::vector<at::Tensor> roots;
  for (const auto& dual : duals) {
    if (is_wrapper(dual)) {
      return false;
    }
    roots.push_back(dual);
    if (const auto& tangent = dual._fw_grad(/*level=*/0); tangent.defined()) {
      roots.push_back(value_on(tangent, LevelPtr()));
    }
  }
  constexpr int64_t most_nodes = 4096;  // to look at for one operator
  int64_t seen = 0;
  return begun != DualLevel::never && !any_node(roots, [&](torch::autograd::Node* node) {
           if (node->num_outputs() > 0) {
             return ++seen > most_nodes;
           }
           const auto* leaf = dynamic_cast<const PrivateLeaf*>(node);
           return !leaf || (leaf->running && leaf->begun < begun);
         });
}

at::Tensor ForwardFrame::strip(const at::Tensor& tensor) const {
  return pushed_ ? value_of(tensor, **pushed_) : tensor;
}

at::Tensor as_view_of(const at::Tensor& tangent, const at::Tensor& given) {
  const auto view = tangent.is_same(given) ? at::alias(tangent) : tangent;
  if (view.is_view() || !have_same_memory(view, given)) {
    return view;
  }
  return torch::autograd::as_view(given, view, /*is_bw_differentiable=*/true,
                                  /*is_fw_differentiable=*/true);
}

}  // namespace functorch_ext
