// Operators that select: by a mask that all samples share, by repetition.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_selection_rules() {}

}  // namespace functorch_ext
