#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/wrapper.h"

// Tensors that a function under vmap has made itself, such as torch.zeros(3). They don't differ
// between samples until a value that does is written into them: then they become batched, and all
// their views with them.
namespace functorch_ext {

// One such tensor and its views.
struct OwnMemory final : Aliasing {
  explicit OwnMemory(at::Tensor base_) : base(std::move(base_)) {}
  void add(const c10::intrusive_ptr<WrapperImpl>& alias);
  void update(WrapperImpl&) const override {}

  at::Tensor base;  // all of the memory, on the plane below
  std::vector<c10::weak_intrusive_ptr<WrapperImpl>> aliases;
  size_t pruned_at = 8;
};

// A tensor that the program has just made, as one of the running levels that it belongs to.
at::Tensor made_inside(at::Tensor tensor);

// `alias` shares the memory of `source`; both are of one level.
void share_memory(WrapperImpl& alias, WrapperImpl& source);
inline void share_memory(const at::Tensor& alias, const at::Tensor& source) {
  if (source.defined() && is_wrapper(alias) && is_wrapper(source) && wrapper_of(source)->is_own()) {
    share_memory(*wrapper_of(alias), *wrapper_of(source));
  }
}

// Makes a tensor that was made inside a vmap batched, and its views; false for any other tensor.
bool make_batched(const at::Tensor& tensor, const Level& level);

}  // namespace functorch_ext
