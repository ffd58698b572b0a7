// Activations that aren't pointwise: those along a dimension, softmax and gates, and one that keeps
// something for its backward pass.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// (output, what the backward pass needs); kernels for GPUs need nothing, and give no elements.
std::tuple<at::Tensor, at::Tensor> log_sigmoid_forward_rule(Level& level, const at::Tensor& self) {
  const auto bdim = bdim_of(self, level);
  const auto [output, kept] = at::log_sigmoid_forward(value_of(self, level));
  const bool is_kept = kept.sym_sizes() == output.sym_sizes();
  return {wrap(output, bdim, level), wrap(kept, is_kept ? bdim : no_bdim, level)};
}

// Its result is made in the shape of the cotangent.
template <class Signature>
struct InShapeOfFirst : Pointwise<Signature> {
  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& grad,
                         const at::Tensor& self, const at::Tensor& kept) {
    const bool varies = is_batched_at(grad, level);
    return Pointwise<Signature>::rule(
        op, level, varies ? grad : wrap(expanded_at_front(grad, level), 0, level), self, kept);
  }
};

}  // namespace

void register_activations_rules() {
  add<at::_ops::log_sigmoid_forward>(log_sigmoid_forward_rule);
  add<at::_ops::log_sigmoid_backward, InShapeOfFirst>();
  add<at::_ops::_softmax, AlongDims>({"dim"});
  add<at::_ops::_softmax_backward_data, AlongDims>({"dim"});
  add<at::_ops::_log_softmax, AlongDims>({"dim"});
  add<at::_ops::_log_softmax_backward_data, AlongDims>({"dim"});
  add<at::_ops::_safe_softmax, AlongDims>({"dim"});
  add<at::_ops::glu, AlongDims>({"dim"});
  add<at::_ops::glu_backward, AlongDims>({"dim"});
  add<at::_ops::glu_jvp, AlongDims>({"dim"});
  add<at::_ops::glu_backward_jvp, AlongDims>({"dim"});
}

}  // namespace functorch_ext
