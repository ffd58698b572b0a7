#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <atomic>
#include <utility>

#include "engine/keys.h"
#include "engine/level.h"

namespace functorch_ext {

struct WrapperImpl;

// What is known of the memory that a wrapper stands for: by functionalization of a Functional
// level's, by own_memory.h of the others'.
struct Aliasing : c10::intrusive_ptr_target {
  // Brings the wrapper's value up to date with what was written through other aliases.
  virtual void update(WrapperImpl& wrapper) const = 0;
};

// What a tensor is a view of, while autograd hasn't been told (see views.h).
struct Viewed {
  at::Tensor base;
  uint32_t version = 0;  // of the memory, when the view was taken
  bool in_grad_mode = true;
  bool one_of_several = false;
};

// A tensor of a level's plane: the value that it stands for on the plane below, and which
// dimension of that value, if any, holds the samples.
//
// Sizes and strides are the logical ones: those of one sample. The wrapper has no storage of its
// own, but what was made inside a transform shows that of its value for as long as there is one
// value for all samples.
struct WrapperImpl final : c10::TensorImpl {
  WrapperImpl(at::Tensor value, int64_t bdim, LevelPtr level);

  const at::Tensor& value() const {
    return value_;
  }
  // The batch dimension of value(), or no_bdim: a tensor that is the same for all samples.
  int64_t bdim() const {
    return bdim_;
  }
  bool is_batched() const {
    return bdim_ >= 0;
  }
  Level& level() const {
    return *level_;
  }
  const LevelPtr& level_ptr() const {
    return level_;
  }

  // Stand for another value from now on: what in-place operators that change the shape and
  // functionalized mutations do.
  void set_value(at::Tensor value, int64_t bdim, bool keep_storage = false);
  // Read sizes and strides off the value again, after an operator changed them in place.
  void refresh();

  // Made inside the transform: nothing outside shares its memory, and it isn't batched. It has
  // `aliasing` once it has views.
  bool is_own() const {
    return own_.load(std::memory_order_acquire);
  }
  void set_own(bool readable = true);  // may its memory be read directly?
  void disown();
  bool has_storage() const override;
  // Why there is no storage, and what to do.
  const char* no_storage_message() const;
  const c10::Storage& storage() const override;

  // Of a Functional level: the memory that the tensor aliases, and how often that had been written
  // to when value() was computed. Null: a constant from outside.
  const c10::intrusive_ptr<Aliasing>& aliasing() const {
    return aliasing_;
  }
  uint64_t generation() const {
    return generation_;
  }
  void set_aliasing(c10::intrusive_ptr<Aliasing> aliasing, uint64_t generation);
  // Another value for the same tensor: the strides that the program sees stay as they are.
  void set_functional_value(at::Tensor value, uint64_t generation);
  // Sizes and strides that the program sees, where value() is laid out in another way.
  void set_geometry(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                    const c10::SymInt& storage_offset);
  void set_geometry(const c10::TensorImpl& like) {
    set_geometry(like.sym_sizes(), like.sym_strides(), like.sym_storage_offset());
  }

  // Made by an operator, and nothing views its memory: it may be laid out anew.
  bool is_fresh() const {
    return fresh_;
  }
  void set_fresh(bool fresh) {
    fresh_ = fresh;
  }

  const Viewed& viewed() const {
    return viewed_;
  }
  void set_viewed(const at::Tensor& source, bool one_of_several);
  Viewed forget_viewed() {
    return std::exchange(viewed_, {});
  }

  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(
      const c10::VariableVersion& version_counter,
      bool allow_tensor_metadata_change) const override;
  c10::intrusive_ptr<c10::TensorImpl> shallow_copy_and_detach(
      c10::VariableVersion&& version_counter, bool allow_tensor_metadata_change) const override;
  void shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& impl) override;
  void release_resources() override;
  // Gives up the value, of a wrapper that nobody can reach any more.
  void let_go() {
    value_.reset();
  }

 private:
  const char* tensorimpl_type_name() const override;

  c10::intrusive_ptr<WrapperImpl> copy(bool allow_tensor_metadata_change) const;
  // Lets another wrapper for the same value know of what shares its memory.
  void carry_aliasing(WrapperImpl& alias) const;

  at::Tensor value_;
  LevelPtr level_;
  int64_t bdim_;
  std::atomic<bool> own_{false};
  c10::intrusive_ptr<Aliasing> aliasing_;
  uint64_t generation_ = 0;
  Viewed viewed_;
  mutable bool fresh_ = false;
};

constexpr int64_t no_bdim = -1;

inline bool is_wrapper(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->key_set().has(wrapper_key);
}

inline WrapperImpl* wrapper_of(const at::Tensor& tensor) {
  return static_cast<WrapperImpl*>(tensor.unsafeGetTensorImpl());
}

// How deep the plane is that a tensor belongs to.
inline int64_t depth_of(const at::Tensor& tensor) {
  return is_wrapper(tensor) ? wrapper_of(tensor)->level().depth : 0;
}

// The wrapper behind `tensor` if it belongs to `level`, else null.
inline WrapperImpl* wrapper_at(const at::Tensor& tensor, const Level& level) {
  if (!is_wrapper(tensor)) {
    return nullptr;
  }
  auto* wrapper = wrapper_of(tensor);
  return &wrapper->level() == &level ? wrapper : nullptr;
}

// The tensor of `level`'s plane that stands for `value`, whose samples lie along `bdim`.
at::Tensor wrap(at::Tensor value, int64_t bdim, const Level& level);

// The value of a tensor on the plane below `level`; a tensor that is not of that level is there
// already.
inline const at::Tensor& value_of(const at::Tensor& tensor, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  return wrapper ? wrapper->value() : tensor;
}

inline bool is_batched_at(const at::Tensor& tensor, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  return wrapper && wrapper->is_batched();
}

inline int64_t bdim_of(const at::Tensor& tensor, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  return wrapper ? wrapper->bdim() : no_bdim;
}

// What a wrapper that escaped its transform stands for: its value. A batched one has no meaning any
// more and raises.
const at::Tensor& escaped_value(const WrapperImpl& wrapper);

// Raises for an operator on tensors of two transforms neither of which is inside the other.
[[noreturn]] void refuse_foreign_tensor();

}  // namespace functorch_ext
