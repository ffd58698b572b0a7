#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>

#include <optional>
#include <vector>

#include "engine/level.h"

namespace functorch_ext {

// One running reverse-mode transform (grad, vjp, jacrev): PyTorch's own autograd on the current
// plane, on aliases of the inputs.
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
  // number `start` on: rows of the Jacobian, in dimension 0 of the results. Keeps the graph.
  std::vector<at::Tensor> pull_back_basis(const std::vector<at::Tensor>& outputs, int64_t start,
                                          int64_t count) const;

  // An output as the caller gets it: without a link to the private aliases.
  at::Tensor release(const at::Tensor& output) const;

  // Treats the inputs of another frame as private too: this frame differentiates what it made.
  void share_privacy(const ReverseFrame& other);

  // Is any input, or anything else that the outputs depend on, differentiated outside?
  bool graph_is_used(const std::vector<at::Tensor>& outputs) const;

 private:
  LevelPtr plane_;
  std::vector<at::Tensor> inputs_;
  std::vector<at::Tensor> also_private_;
  bool connected_ = false;  // an input is itself differentiated by an outer transform
  bool outer_grad_mode_;
  std::optional<c10::InferenceMode> normal_mode_;
  bool running_ = true;
};

// torch.autograd.grad and .backward() called by the program itself, on tensors of any plane: the
// gradients, or none if they are accumulated into the leaves.
std::vector<at::Tensor> run_backward(const std::vector<at::Tensor>& outputs,
                                     const std::vector<std::optional<at::Tensor>>& cotangents,
                                     const std::vector<at::Tensor>& inputs, bool keep_graph,
                                     bool create_graph, bool allow_unused, bool accumulate);

}  // namespace functorch_ext
