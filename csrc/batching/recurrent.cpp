// Recurrent networks: the fused cells of LSTM and GRU.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_recurrent_rules() {}

}  // namespace functorch_ext
