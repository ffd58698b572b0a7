// A gradient of sparse layout can't have a tangent, nor be the gradient by a tangent: there the
// dense one.
#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

at::Tensor dense_embedding(const at::Tensor& weight, const at::Tensor& indices,
                           c10::SymInt padding_idx, bool scale_grad_by_freq, bool) {
  return at::embedding_symint(weight, indices, std::move(padding_idx), scale_grad_by_freq,
                              /*sparse=*/false);
}

bool has_sparse_gradient_and_tangents(const at::Tensor& weight, const at::Tensor&,
                                      const c10::SymInt&, bool, bool sparse) {
  return sparse && any_tangent(weight);
}

at::Tensor dense_gradient(const at::Tensor& grad, const at::Tensor& indices, int64_t num_weights,
                          int64_t padding_idx, bool scale_grad_by_freq) {
  return at::embedding_dense_backward(grad, indices, num_weights, padding_idx, scale_grad_by_freq);
}

}  // namespace

void register_embedding_derivatives() {
  add_computed_when<at::_ops::embedding, has_sparse_gradient_and_tangents, dense_embedding>();
  add_computed_when<at::_ops::embedding_sparse_backward, has_tangents, dense_gradient>();
}

}  // namespace functorch_ext
