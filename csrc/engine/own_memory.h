#pragma once

#include <ATen/core/Tensor.h>

#include <mutex>
#include <vector>

#include "engine/wrapper.h"

// Tensors that a function inside a transform has made itself, such as torch.zeros(3).
//
// Under vmap they don't differ between samples until a value that does is written into them: then
// they become batched, and all their views with them. To forward mode on a Dual level they are
// constants until one that has a tangent is.
namespace functorch_ext {

// How memory was handed to code that the engine doesn't see.
enum class HandedOut : uint8_t {
  Nowhere,
  Pointer,  // as an address: it stays valid
  Shared,   // to somebody who expects to see later writes
};

// One such tensor and its views.
struct OwnMemory final : Aliasing {
  explicit OwnMemory(at::Tensor base_) : base(std::move(base_)) {}
  void add(const c10::intrusive_ptr<WrapperImpl>& alias);
  // The wrappers that view it now.
  std::vector<c10::intrusive_ptr<WrapperImpl>> live() const;
  void update(WrapperImpl&) const override {}

  at::Tensor base;  // all of the memory, on the plane below
  std::vector<c10::weak_intrusive_ptr<WrapperImpl>> aliases;
  static constexpr size_t least_pruned_at = 8;
  size_t pruned_at = least_pruned_at;
  HandedOut handed_out = HandedOut::Nowhere;
};

// Keeps other threads from laying out the own memory of a level anew, for as long as this lives.
class OwnMemoryLock {
 public:
  OwnMemoryLock() = default;
  explicit OwnMemoryLock(const Level& level) {
    acquire(level);
  }
  void acquire(const Level& level);

 private:
  std::unique_lock<std::recursive_mutex> lock_;
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

// The memory of a tensor was handed out: it can't be laid out anew (Shared), or not be freed.
void hand_out(const at::Tensor& tensor, HandedOut how);

// The memory holds more than what was made inside: it can't be read directly any more.
void disown(const at::Tensor& tensor);

// Makes a tensor that was made inside a vmap batched, and its views; false for any other tensor.
bool make_batched(const at::Tensor& tensor, const Level& level);

}  // namespace functorch_ext
