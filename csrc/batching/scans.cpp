// Scans: cumsum and the like.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// A scan in place: on a view of the value, where a number has one dimension.
template <class Op>
at::Tensor& scan_in_place_rule(Level& level, at::Tensor& self, int64_t dim,
                               std::optional<at::ScalarType> dtype) {
  auto value = at_front(self, level);
  if (self.dim() == 0) {
    value = value.unsqueeze(1);
  }
  Op::call(value, physical_dim(dim, std::max<int64_t>(self.dim(), 1)), dtype);
  return self;
}

}  // namespace

void register_scans_rules() {
  add<at::_ops::cumsum, AlongDims>({"dim"});
  add<at::_ops::cumprod, AlongDims>({"dim"});
  add<at::_ops::cummax, AlongDims>({"dim"});
  add<at::_ops::cummin, AlongDims>({"dim"});
  add<at::_ops::logcumsumexp, AlongDims>({"dim"});
  add<at::_ops::_logcumsumexp, AlongDims>({"dim"});
  add<at::_ops::cumsum_>(scan_in_place_rule<at::_ops::cumsum_>);
  add<at::_ops::cumprod_>(scan_in_place_rule<at::_ops::cumprod_>);
}

}  // namespace functorch_ext
