#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>

#include <optional>
#include <vector>

#include "autodiff/plane.h"
#include "engine/frames.h"
#include "releases/nodes.h"

namespace functorch_ext {

struct PrivateLeaf;

// One running reverse-mode transform (grad, vjp, jacrev): PyTorch's own autograd on the current
// plane, or that of the deepest input, on aliases of the inputs. Inside a transform of torch.func's
// it is on a level of its own, which a later pull_back() goes back to.
class ReverseFrame {
 public:
  // Starts: grad mode is on until exit().
  ReverseFrame();
  ~ReverseFrame();
  ReverseFrame(const ReverseFrame&) = delete;
  ReverseFrame& operator=(const ReverseFrame&) = delete;
  void exit();

  // Aliases of the inputs, on this plane, that autograd records from.
  std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& inputs);

  // The cotangents of the inputs, for cotangents of some outputs; zeros where an output doesn't
  // depend on an input. No cotangent stands for one, of a scalar output. A graph of the
  // result is recorded only where somebody could use it.
  std::vector<at::Tensor> pull_back(const std::vector<at::Tensor>& outputs,
                                    const std::vector<std::optional<at::Tensor>>& cotangents,
                                    bool keep_graph) const;

  // The same for vectors of the standard basis of the outputs' elements, `count` of them from
  // number `start` on: rows of the Jacobian, in dimension 0 of the results.
  std::vector<at::Tensor> pull_back_basis(const std::vector<at::Tensor>& outputs,
                                          const c10::SymInt& start, const c10::SymInt& count,
                                          bool keep_graph) const;

  // What a tensor of this frame's own level, if it has one, stands for outside.
  at::Tensor strip(const at::Tensor& tensor) const;

  // An output as the caller gets it: without a link to the private aliases.
  at::Tensor release(const at::Tensor& output) const;

  // Can anybody ask for a derivative of the outputs, other than by this frame's inputs: by a tensor
  // from outside that requires grad, or the inputs of a transform around this one?
  bool graph_is_used(const std::vector<at::Tensor>& outputs) const;

 private:
  void enter_plane_of(const std::vector<at::Tensor>& inputs);
  bool depends_on_inputs(const at::Tensor& tensor) const;
  void check_within_reach(const at::Tensor& output) const;

  std::optional<RecordingAllowed> allowed_{std::in_place};
  std::optional<RunningLevel> pushed_;  // a level of this frame's own
  LevelPtr plane_;
  std::vector<at::Tensor> inputs_;
  std::vector<NodePtr<PrivateLeaf>> leaves_;  // of the inputs, if not connected_
  bool connected_ = false;  // an input is itself differentiated by an outer transform
  bool outer_grad_mode_;    // does reverse mode outside record what is computed here?
  std::optional<Differentiation> differentiation_;
  std::optional<c10::AutoGradMode> grad_mode_;
  std::optional<OnPlane> on_plane_;
  bool running_ = true;
};

}  // namespace functorch_ext
