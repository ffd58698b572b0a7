// Products of scaled low-precision matrices.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_scaled_matmul_rules() {}

}  // namespace functorch_ext
