#include "autodiff/forward.h"

#include <ATen/ops/_make_dual.h>
#include <ATen/ops/_unpack_dual.h>
#include <c10/core/AutogradState.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <mutex>

#include "autodiff/plane.h"

namespace functorch_ext {

namespace {

using torch::autograd::ForwardADLevel;

// PyTorch has one dual level in the whole process, number 0. All frames of all threads share it:
// the first opens it and the last closes it, unless the user opened it.
class DualLevel {
 public:
  // Is it open by somebody else than us?
  static bool foreign() {
    const std::lock_guard<std::mutex> lock(mutex());
    return users() == 0 && ForwardADLevel::try_get_by_idx(0) != nullptr;
  }
  static void open() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (users() > 0 || ForwardADLevel::try_get_by_idx(0) == nullptr) {
      if (users()++ == 0) {
        ForwardADLevel::get_next_idx();
      }
    } else {
      ++foreign_users();
    }
  }
  static void close() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (foreign_users() > 0) {
      --foreign_users();
    } else if (--users() == 0) {
      ForwardADLevel::release_idx(0);
    }
  }

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }
  static int64_t& users() {
    static int64_t count = 0;
    return count;
  }
  static int64_t& foreign_users() {
    static int64_t count = 0;
    return count;
  }
};

bool forward_runs_on(const LevelPtr& plane) {
  if (plane) {
    return plane->forward_running > 0;
  }
  return thread_state().forward_running > 0 || DualLevel::foreign();
}

}  // namespace

ForwardFrame::ForwardFrame()
    : plane_(thread_state().plane),
      outer_plane_(plane_),
      outer_innermost_(thread_state().innermost),
      outer_forward_mode_(c10::AutogradState::get_tls_state().get_fw_grad_mode()),
      pushed_(forward_runs_on(plane_)) {
  if (pushed_) {
    auto& state = thread_state();
    plane_ = c10::make_intrusive<Level>(LevelKind::Dual,
                                        state.innermost ? state.innermost->depth + 1 : 1,
                                        c10::SymInt(0), Randomness::Error, state.innermost);
    state.plane = plane_;
    state.innermost = plane_;
  }
  DualLevel::open();
  begin_differentiation(plane_, Direction::Forward, /*grad_mode_below=*/true);
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
  end_differentiation(plane_, Direction::Forward);
  DualLevel::close();
  if (pushed_) {
    plane_->alive = false;
    thread_state().plane = outer_plane_;
    thread_state().innermost = outer_innermost_;
  }
}

std::vector<at::Tensor> ForwardFrame::make_dual(const std::vector<at::Tensor>& primals,
                                                const std::vector<at::Tensor>& tangents) const {
  std::vector<at::Tensor> duals;
  duals.reserve(primals.size());
  for (size_t i = 0; i < primals.size(); ++i) {
    duals.push_back(
        at::_make_dual(lift_to(primals[i], plane_), lift_to(tangents[i], plane_), /*level=*/0));
  }
  return duals;
}

std::pair<at::Tensor, at::Tensor> ForwardFrame::unpack(const at::Tensor& output) const {
  if (!on_plane(output, plane_)) {
    return {output, {}};
  }
  auto [primal, tangent] = at::_unpack_dual(output, /*level=*/0);
  return {strip(primal), tangent.defined() ? strip(tangent) : tangent};
}

at::Tensor ForwardFrame::strip(const at::Tensor& tensor) const {
  return pushed_ ? value_of(tensor, *plane_) : tensor;
}

}  // namespace functorch_ext
