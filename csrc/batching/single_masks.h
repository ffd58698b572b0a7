#pragma once

#include "batching/families.h"

// Masks without dimensions as indices: x[mask] with one is x[None][mask[None]]. Elsewhere Python
// reads such a mask; one of a transform's it passes on as it is, and PyTorch's kernels don't take
// it.
namespace functorch_ext {

inline bool is_mask(const at::Tensor& index) {
  return index.scalar_type() == at::kBool || index.scalar_type() == at::kByte;
}

inline bool is_single_mask(const std::optional<at::Tensor>& index) {
  return index && index->defined() && index->dim() == 0 && is_mask(*index);
}

// Gives each such mask a dimension, and what is indexed one for it.
inline at::Tensor with_dimensions(at::Tensor self, OptionalTensors& indices) {
  int64_t dim = 0;
  for (size_t i = 0; i < indices.size(); ++i) {
    const std::optional<at::Tensor> index = indices.get(i);
    if (is_single_mask(index)) {
      self = self.unsqueeze(dim);
      indices.set(i, index->unsqueeze(0));
    }
    const bool covers_more = index && index->defined() && is_mask(*index);
    dim += covers_more ? std::max<int64_t>(index->dim(), 1) : 1;
  }
  return self;
}

// The entry of indexing operators.
template <class Signature>
class Indexing;
template <class Return, class Self, class... Parameters>
class Indexing<Return(Self, const OptionalTensors&, Parameters...)> final
    : public c10::OperatorKernel {
 public:
  using Signature = Return(Self, const OptionalTensors&, Parameters...);
  Indexing(const Operator<Signature>& op, bool entry) : call_(op.call), kernel_(op, entry) {}

  Return operator()(c10::DispatchKeySet keys, Self self, const OptionalTensors& indices,
                    Parameters... arguments) const {
    for (size_t i = 0; i < indices.size(); ++i) {
      if (C10_UNLIKELY(is_single_mask(indices.get(i)))) {
        auto masks = indices.copy();
        auto viewed = with_dimensions(self, masks);
        if constexpr (std::is_reference_v<Return>) {
          call_(viewed, masks, std::forward<Parameters>(arguments)...);
          return self;
        } else {
          return call_(viewed, masks, std::forward<Parameters>(arguments)...);
        }
      }
    }
    return kernel_(keys, self, indices, std::forward<Parameters>(arguments)...);
  }

 private:
  Return (*const call_)(Self, const OptionalTensors&, Parameters...);
  const Kernel<Signature> kernel_;
};

}  // namespace functorch_ext
