// Reductions over segments of rows: segment_reduce, embedding_bag.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_segments_rules() {}

}  // namespace functorch_ext
