#include "engine/wrapper.h"

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

#include "engine/own_memory.h"
#include "engine/thread_state.h"

namespace functorch_ext {

namespace {

c10::DispatchKeySet wrapper_keys(const at::Tensor& value, const Level& level) {
  constexpr auto always =
      c10::DispatchKeySet({entry_key, landing_key, wrapper_key, c10::DispatchKey::AutogradOther,
                           c10::DispatchKey::ADInplaceOrView}) |
      c10::DispatchKeySet(subclass_mark);
  const auto keys = C10_LIKELY(level.layers == 0) ? always : always.add(ahead_key);
  switch (value.device().type()) {
    case c10::DeviceType::CPU:
      return keys.add(c10::DispatchKey::AutocastCPU);
    case c10::DeviceType::CUDA:
      return keys.add(c10::DispatchKey::AutocastCUDA);
    default:
      return keys | (value.key_set() & c10::autocast_dispatch_keyset);
  }
}

}  // namespace

WrapperImpl::WrapperImpl(at::Tensor value, int64_t bdim, LevelPtr level)
    : c10::TensorImpl(c10::DispatchKeySet(), value.dtype(), value.device()),
      value_(std::move(value)),
      level_(std::move(level)),
      bdim_(bdim) {
  TORCH_CHECK(!value_.key_set().has(c10::DispatchKey::SparseCsr),
              "functorch_ext: a tensor of layout ", value_.layout(),
              " can't be batched, nor differentiated inside vmap. Use to_sparse_coo() or "
              "to_dense() of it.");
  // Not given to TensorImpl's constructor, which would add the autograd key of the mark's backend,
  // and in inference mode take those of autograd away: there, too, a transform inside can
  // differentiate wrappers.
  key_set_ = wrapper_keys(value_, *level_);
  if (C10_UNLIKELY(!version_counter_.enabled())) {
    version_counter_ = c10::VariableVersion(0);
  }
  set_storage_access_should_throw();
  refresh();
}

void WrapperImpl::set_value(at::Tensor value, int64_t bdim, bool keep_storage) {
  value_ = std::move(value);
  bdim_ = bdim;
  data_type_ = value_.dtype();
  refresh();
  if (is_own()) {
    if (!keep_storage) {
      storage_ = {};
    }
    disown();
  }
}

void WrapperImpl::refresh() {
  const auto* impl = value_.unsafeGetTensorImpl();
  if (!level_->computes_operators) {
    // Is the value to be conjugated or negated yet? A tensor and its tangent have to agree in that.
    constexpr c10::DispatchKeySet put_off(
        {c10::DispatchKey::Conjugate, c10::DispatchKey::Negative});
    key_set_ = (key_set_ - put_off) | (impl->key_set() & put_off);
  }
  if (C10_UNLIKELY(impl->has_symbolic_sizes_strides())) {
    auto sizes = impl->sym_sizes().vec();
    auto strides = impl->sym_strides().vec();
    if (bdim_ >= 0) {
      sizes.erase(sizes.begin() + bdim_);
      strides.erase(strides.begin() + bdim_);
    }
    TensorImpl::set_sizes_and_strides(sizes, strides, impl->sym_storage_offset());
    return;
  }
  const auto sizes = impl->sizes();
  const auto strides = impl->strides();
  // All dimensions but that of the samples.
  const auto rank = sizes.size() - (bdim_ >= 0 ? 1 : 0);
  const auto before = bdim_ >= 0 ? static_cast<size_t>(bdim_) : rank;
  sizes_and_strides_.resize(rank);
  int64_t* const own_sizes = sizes_and_strides_.sizes_data();
  int64_t* const own_strides = sizes_and_strides_.strides_data();
  int64_t numel = 1;
  const auto take = [&](size_t dim, size_t physical) {
    own_sizes[dim] = sizes[physical];
    own_strides[dim] = strides[physical];
    numel *= sizes[physical];
  };
  for (size_t dim = 0; dim < before; ++dim) {
    take(dim, dim);
  }
  for (size_t dim = before; dim < rank; ++dim) {
    take(dim, dim + 1);
  }
  numel_ = numel;
  storage_offset_ = impl->storage_offset();
  // Samples one after the other, as nearly all are, and too few dimensions to end in channels.
  if (C10_LIKELY(bdim_ <= 0 && rank < 4 && numel > 0 && impl->is_contiguous())) {
    is_contiguous_ = is_non_overlapping_and_dense_ = true;
    is_channels_last_ = is_channels_last_contiguous_ = false;
    is_channels_last_3d_ = is_channels_last_3d_contiguous_ = false;
  } else {
    refresh_contiguous();
  }
}

void WrapperImpl::set_own(bool readable) {
  // There is one value for all samples: its memory can be read, as by .numpy() or .tolist().
  if (readable && value_.has_storage()) {
    storage_ = value_.storage();
  }
  own_.store(true, std::memory_order_release);
}

// Comes last of what changes: who sees that a tensor isn't own doesn't wait for others.
void WrapperImpl::disown() {
  aliasing_.reset();
  own_.store(false, std::memory_order_release);
}

bool WrapperImpl::has_storage() const {
  const bool has = is_own() && storage_ && value_.has_storage();
  if (!has) {
    note_memory_refusal();
  }
  return has;
}

const c10::Storage& WrapperImpl::storage() const {
  TORCH_CHECK_NOT_IMPLEMENTED(has_storage(), no_storage_message());
  return storage_;
}

const char* WrapperImpl::no_storage_message() const {
  return level_->has_samples
             ? "functorch_ext.vmap: the function reads the memory of a batched tensor, as "
               "x.numpy(), x.tolist() and x.data_ptr() do, but the samples may differ and have no "
               "memory of their own. Use tensor operations instead."
             : "functorch_ext: the function reads the memory of a tensor inside a transform, as "
               "x.numpy(), x.tolist() and x.data_ptr() do, but the tensor has none: it stands for "
               "a value that mutations replace, or has a derivative. Use tensor operations "
               "instead.";
}

void WrapperImpl::set_aliasing(c10::intrusive_ptr<Aliasing> aliasing, uint64_t generation) {
  aliasing_ = std::move(aliasing);
  generation_ = generation;
}

void WrapperImpl::set_viewed(const at::Tensor& source, bool one_of_several) {
  const auto& of_source = wrapper_of(source)->viewed_;
  viewed_.base = of_source.base.defined() ? of_source.base : source;
  viewed_.version = is_inference() ? 0 : version_counter().current_version();
  viewed_.in_grad_mode =
      c10::GradMode::is_enabled() && (!of_source.base.defined() || of_source.in_grad_mode);
  viewed_.one_of_several = one_of_several || of_source.one_of_several;
}

void WrapperImpl::set_functional_value(at::Tensor value, uint64_t generation) {
  value_ = std::move(value);
  generation_ = generation;
}

void WrapperImpl::set_geometry(c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                               const c10::SymInt& storage_offset) {
  const auto changeable = allow_tensor_metadata_change();
  set_allow_tensor_metadata_change(true);
  TensorImpl::set_sizes_and_strides(sizes, strides, storage_offset);
  set_allow_tensor_metadata_change(changeable);
}

c10::intrusive_ptr<WrapperImpl> WrapperImpl::copy(bool allow_tensor_metadata_change) const {
  if (!allow_tensor_metadata_change) {
    fresh_ = false;  // for the program, as x.data; autograd keeps others for itself
  }
  auto copy = c10::make_intrusive<WrapperImpl>(value_, bdim_, level_);
  carry_aliasing(*copy);
  return copy;
}

c10::intrusive_ptr<c10::TensorImpl> WrapperImpl::shallow_copy_and_detach(
    const c10::VariableVersion& version_counter, bool allow_tensor_metadata_change) const {
  auto copy = this->copy(allow_tensor_metadata_change);
  copy->set_version_counter(version_counter);
  copy->set_allow_tensor_metadata_change(allow_tensor_metadata_change);
  return copy;
}

c10::intrusive_ptr<c10::TensorImpl> WrapperImpl::shallow_copy_and_detach(
    c10::VariableVersion&& version_counter, bool allow_tensor_metadata_change) const {
  auto copy = this->copy(allow_tensor_metadata_change);
  copy->set_version_counter(std::move(version_counter));
  copy->set_allow_tensor_metadata_change(allow_tensor_metadata_change);
  return copy;
}

// What comes is of the same level, or of a lower plane: then it is the value of all samples.
void WrapperImpl::shallow_copy_from(const c10::intrusive_ptr<c10::TensorImpl>& impl) {
  if (impl.get() == this) {
    return;
  }
  const at::Tensor other(
      c10::intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>::reclaim_copy(impl.get()));
  viewed_ = {};
  const auto* wrapper = wrapper_at(other, *level_);
  if (!wrapper) {
    set_value(other, no_bdim);
    return;
  }
  set_value(wrapper->value_, wrapper->bdim_);
  wrapper->fresh_ = fresh_ = false;
  wrapper->carry_aliasing(*this);
}

void WrapperImpl::carry_aliasing(WrapperImpl& alias) const {
  if (is_own()) {
    share_memory(alias, const_cast<WrapperImpl&>(*this));
  } else if (aliasing_) {
    alias.set_aliasing(aliasing_, generation_);
    alias.set_geometry(*this);
  }
}

// Weak references (of OwnMemory) may keep the object itself for longer.
void WrapperImpl::release_resources() {
  value_.reset();
  level_.reset();
  aliasing_.reset();
  viewed_ = {};
  TensorImpl::release_resources();
}

const char* WrapperImpl::tensorimpl_type_name() const {
  return "functorch_ext::WrapperImpl";
}

at::Tensor wrap(at::Tensor value, int64_t bdim, const Level& level) {
  auto level_ptr = LevelPtr::reclaim_copy(const_cast<Level*>(&level));
  return at::Tensor(c10::make_intrusive<WrapperImpl>(std::move(value), bdim, std::move(level_ptr)));
}

const at::Tensor& escaped_value(const WrapperImpl& wrapper) {
  if (wrapper.is_batched()) {
    note_foreign_tensor();
  }
  TORCH_CHECK(
      !wrapper.is_batched(),
      "functorch_ext.vmap: a batched tensor outlived its vmap: it was used after the vmap that "
      "made it had returned. "
      "Return the tensor from the mapped function instead of keeping it (in a list, an attribute "
      "or a closure).");
  if (wrapper.aliasing()) {
    wrapper.aliasing()->update(const_cast<WrapperImpl&>(wrapper));
  }
  return wrapper.value();
}

void refuse_foreign_tensor() {
  note_foreign_tensor();
  TORCH_CHECK(
      false,
      "functorch_ext: an operator got tensors of two different transforms that run at the same "
      "depth (in two threads?). A tensor inside a transform can't be shared with another one.");
}

}  // namespace functorch_ext
