#pragma once

#include <optional>
#include <tuple>

#include "batching/channels.h"
#include "batching/families.h"

// Scaled dot-product attention. Fused kernels take (N, heads, length, features): the samples join
// N.
namespace functorch_ext {

// A mask as what is added to the scores: a boolean one tells which keys count.
OptionalTensor additive_mask(const OptionalTensor& mask, at::ScalarType dtype);

// Arguments of a fused kernel with the samples joined with N, and its results parted again.
class JoinedAttention {
 public:
  JoinedAttention(const at::Tensor& query, const Level& level)
      : level_(level), n_(query.sym_size(0)) {}

  at::Tensor operator()(const at::Tensor& tensor) const {
    return tensor.defined() ? merge_into(expanded_at_front(tensor, level_), 0) : tensor;
  }
  // A mask broadcasts against (N, heads, queries, keys). `whole`: N is that of the query, even if
  // all share the mask.
  OptionalTensor mask(const OptionalTensor& mask, bool whole = false) const;

  at::Tensor part(const at::Tensor& result) const {
    return result.defined() ? wrap(split_from(result, 0, level_, n_), 0, level_) : result;
  }
  at::Tensor shared(const at::Tensor& result) const {
    return result.defined() ? wrap(result, no_bdim, level_) : result;
  }

 private:
  const Level& level_;
  const c10::SymInt n_;
};

// Does a derivative flow through the mask, on any plane? Most fused kernels don't follow it.
bool is_mask_differentiated(const OptionalTensor& mask);

}  // namespace functorch_ext
