// Scaled dot-product attention.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_attention_rules() {}

}  // namespace functorch_ext
