#include "engine/own_memory.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>

namespace functorch_ext {

namespace {

c10::intrusive_ptr<WrapperImpl> impl_of(WrapperImpl& wrapper) {
  return c10::intrusive_ptr<WrapperImpl>::reclaim_copy(&wrapper);
}

// How many elements of memory a tensor reaches over.
c10::SymInt extent_of(const at::Tensor& tensor) {
  if (tensor.sym_numel() == 0) {
    return 0;
  }
  c10::SymInt extent = 1;
  for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
    extent += (tensor.sym_size(dim) - 1) * tensor.sym_stride(dim);
  }
  return extent;
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
bool in_program(const ThreadState& state) {
  const bool in_rule = state.computing && state.computing->depth <= state.plane->depth;
  return !in_rule && !c10::impl::tls_is_dispatch_key_excluded(c10::DispatchKey::AutogradOther);
}

// The plane around a level: a basis has none, only derivatives belong to it.
const Level* plane_around(const Level& level) {
  const Level* plane = level.parent.get();
  while (plane && plane->is_basis) {
    plane = plane->parent.get();
  }
  return plane;
}

at::Tensor wrap_own(const at::Tensor& tensor, const Level* level) {
  if (!level) {
    return tensor;
  }
  auto wrapped = wrap(wrap_own(tensor, plane_around(*level)), no_bdim, *level);
  if (level->kind == LevelKind::Batch) {
    wrapper_of(wrapped)->set_own();
  }
  return wrapped;
}

}  // namespace

void OwnMemory::add(const c10::intrusive_ptr<WrapperImpl>& alias) {
  if (aliases.size() >= pruned_at) {
    const auto dead =
        std::remove_if(aliases.begin(), aliases.end(), [](const auto& a) { return a.expired(); });
    aliases.erase(dead, aliases.end());
    pruned_at = 2 * aliases.size() + 8;
  }
  aliases.emplace_back(alias);
}

at::Tensor made_inside(at::Tensor tensor) {
  const auto& state = thread_state();
  if (!state.plane || is_wrapper(tensor) || !in_program(state)) {
    return tensor;
  }
  bool in_vmap = false;
  for (const auto* level = state.plane.get(); level; level = plane_around(*level)) {
    if (level->kind == LevelKind::Functional) {
      return tensor;
    }
    in_vmap = in_vmap || level->kind == LevelKind::Batch;
  }
  return in_vmap ? wrap_own(tensor, state.plane.get()) : tensor;
}

void share_memory(WrapperImpl& alias, WrapperImpl& source) {
  if (&alias != &source) {
    memory_of(source).add(impl_of(alias));
    alias.set_own(source.has_storage());
    alias.set_aliasing(source.aliasing(), 0);
  }
}

bool make_batched(const at::Tensor& tensor, const Level& level) {
  auto* wrapper = wrapper_at(tensor, level);
  if (!wrapper || !wrapper->is_own()) {
    return false;
  }
  // Sample after sample, each laid out as the one that was there.
  const auto memory = c10::intrusive_ptr<OwnMemory>::reclaim_copy(&memory_of(*wrapper));
  const auto& base = memory->base;
  if (overlaps_itself(base)) {
    if (memory->aliases.size() > 1) {
      return false;
    }
    wrapper->set_value(base.expand_symint(behind(level.batch_size, base.sym_sizes()))
                           .clone(at::MemoryFormat::Contiguous),
                       0);
    return true;
  }
  const auto extent = extent_of(base);
  const bool readable = wrapper->has_storage() && !is_wrapper(base);
  const auto batched = base.new_empty_strided_symint(behind(level.batch_size, base.sym_sizes()),
                                                     behind(extent, base.sym_strides()));
  batched.copy_(base);
  for (const auto& alias : memory->aliases) {
    const auto impl = alias.lock();
    if (!impl) {
      continue;
    }
    const auto& value = impl->value();
    const bool whole = value.sym_sizes() == base.sym_sizes() &&
                       value.sym_strides() == base.sym_strides() &&
                       value.scalar_type() == base.scalar_type();
    impl->set_value(whole ? batched
                          : batched.as_strided_symint(behind(level.batch_size, value.sym_sizes()),
                                                      behind(extent, value.sym_strides()),
                                                      batched.sym_storage_offset() +
                                                          value.sym_storage_offset() -
                                                          base.sym_storage_offset()),
                    0);
  }
  if (readable) {
    // Wrappers of deeper levels share it too: they must not show what was there before.
    base.storage().unsafeGetStorageImpl()->release_data_and_set_meta_custom_data_ptr_error_msg_(
        "functorch_ext.vmap: the memory of a tensor made inside vmap can't be read any more: a "
        "value that differs between samples was written to it.");
  }
  return true;
}

}  // namespace functorch_ext
