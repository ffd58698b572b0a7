#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>
#include <vector>

#include "autodiff/plane.h"
#include "engine/frames.h"

namespace functorch_ext {

// One running forward-mode transform (jvp, jacfwd): PyTorch's own forward mode on the current
// plane, or that of the deepest primal. While another such transform runs, or inside one of
// torch.func's, it is on a Dual level above that plane.
class ForwardFrame {
 public:
  // Whether it may have a level of its own. Not where code runs again that ran in an earlier frame:
  // it must record as much as then, on the plane of its tensors.
  enum class Planes : bool { MayPush, AsBefore };
  explicit ForwardFrame(const std::vector<at::Tensor>& primals, Planes planes = Planes::MayPush);
  ~ForwardFrame();
  ForwardFrame(const ForwardFrame&) = delete;
  ForwardFrame& operator=(const ForwardFrame&) = delete;
  void exit();

  // Dual tensors on this frame's plane. A tangent may belong to a deeper plane (a basis).
  std::vector<at::Tensor> make_dual(const std::vector<at::Tensor>& primals,
                                    const std::vector<at::Tensor>& tangents) const;

  // The primal and the tangent of an output; the tangent is undefined where the output doesn't
  // depend on the inputs.
  std::pair<at::Tensor, at::Tensor> unpack(const at::Tensor& output) const;

  // Opens and closes PyTorch's dual level for a transform of torch.func's, if a frame has it open
  // already: the tensors of its layer have tangents of their own. False if none has.
  static bool join_dual_level();
  static void leave_dual_level();

  // Are the tangents of these tensors of plane 0 constants to all who differentiate: to transforms
  // inside the one that they belong to, which see tangents of an outer one, and nobody else? (In
  // one graph on one plane autograd would record them for nobody.)
  static bool tangents_are_constants(at::ArrayRef<at::Tensor> duals);

  // What a tensor of this frame's plane stands for on the plane outside.
  at::Tensor strip(const at::Tensor& tensor) const;

 private:
  void check_running() const;

  std::optional<RecordingAllowed> allowed_{std::in_place};
  std::optional<OnPlane> on_plane_;
  std::optional<RunningLevel> pushed_;  // a Dual level of this frame's own
  LevelPtr plane_;                      // where forward mode runs
  bool outer_forward_mode_;
  std::optional<Differentiation> differentiation_;
  bool running_ = true;
};

// A tangent as a view of `given`, for autograd, if it has the same memory; else, or if autograd
// knows already, as it is. (Of levels that aren't differentiated autograd doesn't see the views.)
at::Tensor as_view_of(const at::Tensor& tangent, const at::Tensor& given);

}  // namespace functorch_ext
