// Activations that work along a dimension: softmax and gates. Others are pointwise.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_activations_rules() {
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
