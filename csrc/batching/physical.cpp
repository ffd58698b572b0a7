#include "batching/physical.h"

#include <ATen/ops/movedim.h>
#include <c10/core/WrapDimMinimal.h>

#include "engine/below_all_levels.h"

namespace functorch_ext {

at::Tensor at_front(const at::Tensor& tensor, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  if (!wrapper) {
    return tensor;
  }
  return wrapper->bdim() > 0 ? wrapper->value().movedim(wrapper->bdim(), 0) : wrapper->value();
}

at::Tensor expanded_at_front(const at::Tensor& tensor, const Level& level) {
  auto value = at_front(tensor, level);
  if (is_batched_at(tensor, level)) {
    return value;
  }
  return value.unsqueeze(0).expand_symint(physical_sizes(value.sym_sizes(), level));
}

namespace {

// Does somebody write down operators, who would miss what goes by memory?
bool somebody_traces() {
  constexpr c10::DispatchKeySet tracing({c10::DispatchKey::Python, c10::DispatchKey::Functionalize,
                                         c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
                                         c10::DispatchKey::Tracer});
  return c10::impl::tls_local_dispatch_key_set().included_.has_any(tracing);
}

}  // namespace

at::Tensor expanded_to_change(const at::Tensor& tensor, const Level& level) {
  const auto value = expanded_at_front(tensor, level);
  if (is_batched_at(tensor, level)) {
    return value;
  }
  const bool is_traced =
      somebody_traces() || below_all_levels(value).key_set().has(c10::DispatchKey::Python);
  return is_traced ? value.clone(at::MemoryFormat::Contiguous) : value;
}

bool is_followed(const at::Tensor& value) {
  return value.requires_grad() || value._fw_grad(/*level=*/0).defined() ||
         (is_wrapper(value) && is_followed(wrapper_of(value)->value()));
}

bool is_plain(const at::Tensor& value) {
  return !is_wrapper(value) && !is_followed(value);
}

bool is_readable(const at::Tensor& value) {
  using Keys = c10::DispatchKeySet;
  constexpr auto of_any_tensor =
      c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;
  return is_plain(value) && value.key_set() - of_any_tensor == Keys(c10::DispatchKey::CPU) &&
         !somebody_traces() && !value.unsafeGetTensorImpl()->has_symbolic_sizes_strides() &&
         value.numel() > 0;
}

at::Tensor aligned(const at::Tensor& tensor, int64_t rank, const Level& level) {
  auto value = at_front(tensor, level);
  if (is_batched_at(tensor, level)) {
    for (auto missing = rank - tensor.dim(); missing > 0; --missing) {
      value = value.unsqueeze(1);
    }
  }
  return value;
}

int64_t physical_dim(int64_t dim, int64_t rank) {
  return c10::maybe_wrap_dim(dim, rank) + 1;
}

std::vector<int64_t> physical_dims(at::IntArrayRef dims, int64_t rank) {
  std::vector<int64_t> physical;
  physical.reserve(dims.size());
  for (const auto dim : dims) {
    physical.push_back(physical_dim(dim, rank));
  }
  return physical;
}

std::vector<c10::SymInt> physical_sizes(c10::SymIntArrayRef sizes, const Level& level) {
  std::vector<c10::SymInt> physical;
  physical.reserve(sizes.size() + 1);
  physical.push_back(level.batch_size);
  physical.insert(physical.end(), sizes.begin(), sizes.end());
  return physical;
}

at::Tensor merge_into(const at::Tensor& value, int64_t dim) {
  TORCH_CHECK(value.dim() > dim + 1, "expected an argument with more than ", dim,
              dim == 1 ? " dimension" : " dimensions", ", but got one with ", value.dim() - 1);
  const auto moved = dim == 0 ? value : value.movedim(0, dim);
  auto sizes = moved.sym_sizes().vec();
  sizes[dim] = sizes[dim] * sizes[dim + 1];
  sizes.erase(sizes.begin() + dim + 1);
  return moved.reshape_symint(sizes);
}

at::Tensor split_from(const at::Tensor& value, int64_t dim, const Level& level, c10::SymInt size) {
  auto sizes = value.sym_sizes().vec();
  sizes[dim] = std::move(size);
  sizes.insert(sizes.begin() + dim, level.batch_size);
  const auto split = value.reshape_symint(sizes);
  return dim == 0 ? split : split.movedim(dim, 0);
}

}  // namespace functorch_ext
