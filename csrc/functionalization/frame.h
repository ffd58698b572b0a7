#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/frames.h"
#include "functionalization/mode.h"

namespace functorch_ext {

// One running functionalize: a Functional level, which is the plane, for as long as it runs.
class FunctionalFrame {
 public:
  explicit FunctionalFrame(bool remove_views);
  ~FunctionalFrame();
  FunctionalFrame(const FunctionalFrame&) = delete;
  FunctionalFrame& operator=(const FunctionalFrame&) = delete;
  void exit();

  // An input as a tensor of the level; the same input is the same tensor.
  at::Tensor wrap(const at::Tensor& input);
  // The value of an output.
  at::Tensor unwrap(const at::Tensor& output) const;
  // After exit(): gives the inputs that were written to their new values.
  void write_back();

 private:
  struct Input {
    at::Tensor outside;
    at::Tensor inside;
    c10::intrusive_ptr<c10::intrusive_ptr_target> memory;
  };

  std::optional<OutsideRules> outside_{std::in_place};
  RunningLevel level_;
  std::vector<Input> inputs_;
  std::unique_ptr<FunctionalBelow> mode_;
};

}  // namespace functorch_ext
