// Elementwise operators: every one that native_functions.yaml tags `pointwise`, in the table that
// codegen makes of it.
#include "batching/families.h"

#include "batching/rules.h"
#include "pointwise_includes.inc"

namespace functorch_ext {

void register_pointwise_rules() {
#define FUNCTORCH_EXT_POINTWISE(op) add<at::_ops::op, Pointwise>();
#include "pointwise_table.inc"
#undef FUNCTORCH_EXT_POINTWISE
}

}  // namespace functorch_ext
