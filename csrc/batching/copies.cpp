// What is written to a tensor as a whole: another one, or one number.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

at::Tensor& copy_in_place_rule(Level& level, at::Tensor& self, const at::Tensor& src,
                               bool non_blocking) {
  at_front(self, level).copy_(aligned(src, self.dim(), level), non_blocking);
  return self;
}

at::Tensor copy_rule(Level& level, const at::Tensor& self, const at::Tensor& src,
                     bool non_blocking) {
  return wrap(
      at::copy(expanded_at_front(self, level), aligned(src, self.dim(), level), non_blocking), 0,
      level);
}

at::Tensor& fill_in_place_rule(Level& level, at::Tensor& self, const at::Tensor& number) {
  TORCH_CHECK(number.dim() == 0, "fill_: the value must have no dimensions, got ", number.dim());
  return copy_in_place_rule(level, self, number, false);
}

at::Tensor fill_rule(Level& level, const at::Tensor& self, const at::Tensor& number) {
  TORCH_CHECK(number.dim() == 0, "fill: the value must have no dimensions, got ", number.dim());
  return copy_rule(level, self, number, false);
}

}  // namespace

void register_copies_rules() {
  add<at::_ops::copy_>(copy_in_place_rule);
  add<at::_ops::copy>(copy_rule);
  add<at::_ops::zero_, Pointwise>();
  add<at::_ops::zero, Pointwise>();
  add<at::_ops::fill__Scalar, Pointwise>();
  add<at::_ops::fill_Scalar, Pointwise>();
  add<at::_ops::fill__Tensor>(fill_in_place_rule);
  add<at::_ops::fill_Tensor>(fill_rule);
}

}  // namespace functorch_ext
