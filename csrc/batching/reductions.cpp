// Operators that work along given dimensions and keep the others apart: reductions, scans, sorts
// and softmax.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_reductions_rules() {
  add<at::_ops::sum_dim_IntList, AlongDims>({"dim"});
  add<at::_ops::amax, AlongDims>({"dim"});
}

}  // namespace functorch_ext
