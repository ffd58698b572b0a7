#include "engine/own_memory.h"

#include <ATen/ops/_conj.h>
#include <ATen/ops/_neg_view.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <Python.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

#include "engine/extent.h"
#include "engine/torch_func.h"

namespace functorch_ext {

namespace {

c10::intrusive_ptr<WrapperImpl> impl_of(WrapperImpl& wrapper) {
  return c10::intrusive_ptr<WrapperImpl>::reclaim_copy(&wrapper);
}

// How many elements of memory a tensor reaches over.
c10::SymInt extent_of(const at::Tensor& tensor) {
  return tensor.sym_numel() == 0 ? c10::SymInt(0)
                                 : distance_to_last(tensor.sym_sizes(), tensor.sym_strides()) + 1;
}

// Do several elements of a tensor lie in one place, as those of an expanded one do?
bool overlaps_itself(const at::Tensor& tensor) {
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.sym_stride(dim) == 0 && tensor.sym_size(dim) > 1) {
      return true;
    }
  }
  return false;
}

std::vector<c10::SymInt> behind(c10::SymInt first, c10::SymIntArrayRef rest) {
  std::vector<c10::SymInt> all = {std::move(first)};
  all.insert(all.end(), rest.begin(), rest.end());
  return all;
}

c10::SymInt round_up(const c10::SymInt& number, int64_t multiple) {
  return multiple == 1 ? number : (number + (multiple - 1)) / multiple * multiple;
}

// One-dimensional memory, seen through another dtype. Between complex and real numbers derivatives
// go on.
at::Tensor seen_as(const at::Tensor& flat, at::ScalarType dtype) {
  const auto own = flat.scalar_type();
  if (own == dtype) {
    return flat;
  }
  if (flat.is_complex() && c10::toRealValueType(own) == dtype) {
    return at::view_as_real(flat).flatten();
  }
  if (c10::isComplexType(dtype) && c10::toRealValueType(dtype) == own) {
    const std::vector<c10::SymInt> pairs = {flat.sym_numel() / 2, 2};
    return at::view_as_complex(flat.view_symint(pairs));
  }
  return flat.view(dtype);
}

// The numbers as memory has them: neither conjugated nor negated yet.
at::Tensor raw(at::Tensor tensor) {
  if (tensor.is_neg()) {
    tensor = at::_neg_view(tensor);
  }
  return tensor.is_conj() ? at::_conj(tensor) : tensor;
}

// Memory for all samples, one after the other, each laid out as the one sample that was there.
class BatchedMemory {
 public:
  BatchedMemory(const at::Tensor& base, const std::vector<c10::intrusive_ptr<WrapperImpl>>& aliases,
                const c10::SymInt& batch_size)
      : base_(base), batch_size_(batch_size), itemsize_(static_cast<int64_t>(base.itemsize())) {
    int64_t largest = itemsize_;
    for (const auto& alias : aliases) {
      largest = std::max(largest, static_cast<int64_t>(alias->value().itemsize()));
    }
    // Each sample starts where numbers of all dtypes that it is seen through may.
    const auto aligned = largest / itemsize_;
    start_ = base.sym_storage_offset() / aligned * aligned;
    c10::SymInt end = reach_of(base);
    for (const auto& alias : aliases) {
      end = end.max(reach_of(alias->value()));
    }
    extent_ = round_up(end - start_, aligned);
    if (largest == itemsize_ && end == reach_of(base) && all_of_dtype(aliases, base)) {
      batched_ = base.new_empty_strided_symint(behind(batch_size, base.sym_sizes()),
                                               behind(extent_, base.sym_strides()));
    } else {
      const std::vector<c10::SymInt> size = {batch_size * extent_};
      flat_ = base.new_empty_symint(size);
      batched_ = part_of(raw(base));
    }
    batched_.copy_(raw(base));
  }

  // What stands for all samples of a tensor that has a part of the memory.
  at::Tensor all_samples(const at::Tensor& value) {
    if (value.sym_sizes() == base_.sym_sizes() && value.sym_strides() == base_.sym_strides() &&
        value.sym_storage_offset() == base_.sym_storage_offset() &&
        value.scalar_type() == base_.scalar_type() && value.is_conj() == batched_.is_conj() &&
        value.is_neg() == batched_.is_neg()) {
      return batched_;
    }
    auto part = part_of(value);
    if (reach_of(value) > reach_of(base_)) {  // it was resized
      part.copy_(raw(value));
    }
    if (value.is_conj()) {
      part = at::_conj(part);
    }
    return value.is_neg() ? at::_neg_view(part) : part;
  }

 private:
  static bool all_of_dtype(const std::vector<c10::intrusive_ptr<WrapperImpl>>& aliases,
                           const at::Tensor& base) {
    return std::all_of(aliases.begin(), aliases.end(), [&](const auto& alias) {
      return alias->value().scalar_type() == base.scalar_type();
    });
  }

  // The end of a tensor in the memory, in elements of the base.
  c10::SymInt reach_of(const at::Tensor& tensor) const {
    const auto size = static_cast<int64_t>(tensor.itemsize());
    const auto end = tensor.sym_storage_offset() + extent_of(tensor);
    return size == itemsize_ ? end : round_up(end * size, itemsize_) / itemsize_;
  }

  at::Tensor part_of(const at::Tensor& value) {
    const auto size = static_cast<int64_t>(value.itemsize());
    const auto in_own = [&](const c10::SymInt& count) {
      return size == itemsize_ ? count : count * itemsize_ / size;
    };
    const auto memory = flat_.defined() ? seen_as(flat_, value.scalar_type()) : batched_;
    return memory.as_strided_symint(behind(batch_size_, value.sym_sizes()),
                                    behind(in_own(extent_), value.sym_strides()),
                                    value.sym_storage_offset() - in_own(start_));
  }

  const at::Tensor& base_;
  const c10::SymInt& batch_size_;
  int64_t itemsize_;
  c10::SymInt start_;   // where the memory starts in that of the base
  c10::SymInt extent_;  // how much of it a sample has
  at::Tensor flat_;     // all of it, where it is seen through several dtypes
  at::Tensor batched_;  // the base of all samples
};

OwnMemory& memory_of(WrapperImpl& wrapper) {
  if (!wrapper.aliasing()) {
    auto memory = c10::make_intrusive<OwnMemory>(wrapper.value());
    memory->add(impl_of(wrapper));
    wrapper.set_aliasing(std::move(memory), 0);
  }
  return static_cast<OwnMemory&>(*wrapper.aliasing());
}

// Is the program itself running, rather than Python code that is part of an operator? (In inference
// mode that can't be told.)
bool in_program() {
  return !in_rule() && !c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradOther);
}

at::Tensor wrap_own(const at::Tensor& tensor, const Level* level) {
  if (!level || level->depth <= depth_of(tensor)) {
    return tensor;
  }
  auto wrapped = wrap(wrap_own(tensor, plane_from(next_to(*level)).get()), no_bdim, *level);
  wrapper_of(wrapped)->set_own();
  return wrapped;
}

// Does no level keep account of memory by itself, of those that a tensor would be wrapped for?
bool may_own(const at::Tensor& tensor, const Level* level) {
  const auto depth = depth_of(tensor);
  for (; level && level->depth > depth; level = plane_from(next_to(*level)).get()) {
    if (level->computes_operators) {
      return false;
    }
  }
  return true;
}

// What a new tensor stands for is new as well, and belongs to the levels that lie between: that of
// zeros_like(x) does, if x differs between the samples of an inner vmap alone.
void own_values(const at::Tensor& tensor) {
  if (!is_wrapper(tensor) || !next_to(wrapper_of(tensor)->level())) {
    return;
  }
  auto& wrapper = *wrapper_of(tensor);
  const auto value = wrapper.value();
  own_values(value);
  const auto below = plane_from(next_to(wrapper.level()));
  if (wrapper.level().has_samples && may_own(value, below.get())) {
    const auto own = wrap_own(value, below.get());
    if (!own.is_same(value)) {
      wrapper.set_value(own, wrapper.bdim());
    }
  }
}

}  // namespace

void OwnMemory::add(const c10::intrusive_ptr<WrapperImpl>& alias) {
  if (aliases.size() >= pruned_at) {
    const auto dead =
        std::remove_if(aliases.begin(), aliases.end(), [](const auto& a) { return a.expired(); });
    aliases.erase(dead, aliases.end());
    pruned_at = 2 * aliases.size() + least_pruned_at;
  }
  aliases.emplace_back(alias);
}

std::vector<c10::intrusive_ptr<WrapperImpl>> OwnMemory::live() const {
  std::vector<c10::intrusive_ptr<WrapperImpl>> found;
  for (const auto& alias : aliases) {
    auto impl = alias.lock();
    if (impl && impl->aliasing().get() == this) {  // else it was given other memory
      found.push_back(std::move(impl));
    }
  }
  return found;
}

void OwnMemoryLock::acquire(const Level& level) {
  lock_ = std::unique_lock(level.own_memory, std::try_to_lock);
  if (lock_) {
    return;
  }
  // The thread that has it may have to run Python code.
  PyThreadState* python = PyGILState_Check() ? PyEval_SaveThread() : nullptr;
  lock_ = std::unique_lock(level.own_memory);
  if (python) {
    PyEval_RestoreThread(python);
  }
}

at::Tensor made_inside(at::Tensor tensor) {
  const auto* deepest = thread_state().plane.get();
  if (!deepest || !in_program() || torch_func_is_innermost()) {
    return tensor;
  }
  own_values(tensor);
  return may_own(tensor, deepest) ? wrap_own(tensor, deepest) : tensor;
}

void share_memory(WrapperImpl& alias, WrapperImpl& source) {
  if (&alias != &source) {
    const OwnMemoryLock lock(source.level());
    memory_of(source).add(impl_of(alias));
    alias.set_own(source.has_storage());
    alias.set_aliasing(source.aliasing(), 0);
  }
}

void hand_out(const at::Tensor& tensor, HandedOut how) {
  if (is_wrapper(tensor) && wrapper_of(tensor)->is_own()) {
    auto& wrapper = *wrapper_of(tensor);
    const OwnMemoryLock lock(wrapper.level());
    auto& memory = memory_of(wrapper);
    memory.handed_out = std::max(memory.handed_out, how);
    hand_out(wrapper.value(), how);
  }
}

void disown(const at::Tensor& tensor) {
  if (is_wrapper(tensor) && wrapper_of(tensor)->is_own()) {
    auto& wrapper = *wrapper_of(tensor);
    const OwnMemoryLock lock(wrapper.level());
    const auto memory = c10::intrusive_ptr<OwnMemory>::reclaim_copy(&memory_of(wrapper));
    for (const auto& alias : memory->live()) {
      alias->disown();
    }
  }
}

bool make_batched(const at::Tensor& tensor, const Level& level) {
  auto* wrapper = wrapper_at(tensor, level);
  if (!wrapper || !level.has_samples) {
    return false;
  }
  const OwnMemoryLock lock(level);
  if (!wrapper->is_own()) {
    return wrapper->is_batched();  // another thread was faster
  }
  const auto memory = c10::intrusive_ptr<OwnMemory>::reclaim_copy(&memory_of(*wrapper));
  TORCH_CHECK(memory->handed_out != HandedOut::Shared,
              "functorch_ext.vmap: a value that differs between samples would be written to a "
              "tensor made inside vmap whose memory was handed out before (by numpy(), DLPack, "
              "untyped_storage(), set_() or the like): who has that memory wouldn't see it. Hand "
              "out a copy, as tensor.clone().numpy() is, or do it after the vmap.");
  const auto aliases = memory->live();
  const auto& base = memory->base;
  if (overlaps_itself(base)) {
    TORCH_CHECK(aliases.size() == 1,
                "functorch_ext.vmap: a value that differs between samples would be written to a "
                "tensor made inside vmap that has views and several of whose elements lie in one "
                "place of memory, as in an expanded tensor. Please clone() it first.");
    wrapper->set_value(base.expand_symint(behind(level.batch_size, base.sym_sizes()))
                           .clone(at::MemoryFormat::Contiguous),
                       0);
    return true;
  }
  BatchedMemory batched(base, aliases, level.batch_size);
  std::vector<at::Tensor> values;
  values.reserve(aliases.size());
  for (const auto& alias : aliases) {
    values.push_back(batched.all_samples(alias->value()));
  }
  const bool keep_storage = memory->handed_out == HandedOut::Pointer;
  for (size_t i = 0; i < aliases.size(); ++i) {
    aliases[i]->set_value(values[i], 0, keep_storage);
  }
  return true;
}

}  // namespace functorch_ext
