// Order and membership: sorting, searching and counting.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Operators whose result has a shape that depends on the data: samples would not fit together.
template <class Signature>
struct DataDependent;

template <class Return, class... Parameters>
struct DataDependent<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level&, Parameters...) {
    TORCH_CHECK(false, "functorch_ext.vmap: the shape of the result of ", op.handle.operator_name(),
                " depends on the data, so it may differ between samples. Use an operation whose "
                "result has a static shape (torch.where instead of a mask, for example).");
  }
};

}  // namespace

void register_sorting_rules() {
  add<at::_ops::sort, AlongDims>({"dim"});
  add<at::_ops::sort_stable, AlongDims>({"dim"});
  add<at::_ops::topk, AlongDims>({"dim"});

  add<at::_ops::_unique, DataDependent>();
  add<at::_ops::_unique2, DataDependent>();
  add<at::_ops::unique_dim, DataDependent>();
  add<at::_ops::unique_consecutive, DataDependent>();
  add<at::_ops::unique_dim_consecutive, DataDependent>();
  add<at::_ops::nonzero, DataDependent>();
  add<at::_ops::masked_select, DataDependent>();
}

}  // namespace functorch_ext
