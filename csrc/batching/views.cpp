// Operators whose result shares memory with their argument.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// An alias of the whole value keeps its batch dimension where it is.
template <class Op>
at::Tensor whole(Level& level, const at::Tensor& self) {
  const auto* wrapper = wrapper_at(self, level);
  return wrap(Op::call(wrapper->value()), wrapper->bdim(), level);
}

}  // namespace

void register_views_rules() {
  add<at::_ops::alias>(whole<at::_ops::alias>);
  add<at::_ops::detach>(whole<at::_ops::detach>);
}

}  // namespace functorch_ext
