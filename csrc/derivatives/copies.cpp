// Tangents that PyTorch lets share memory with those of the argument, where the result shares none
// with it: a write to the one would be a write to the other.
#include "batching/operators.h"
#include "derivatives/register.h"
#include "engine/derivatives.h"

namespace functorch_ext {

namespace {

at::Tensor frac(const at::Tensor& self) {
  return self - self.trunc();
}

template <class View, class Signature = typename View::schema>
struct Copied;
template <class View, class... Parameters>
struct Copied<View, at::Tensor(Parameters...)> {
  static at::Tensor copy(Parameters... arguments) {
    return View::call(std::forward<Parameters>(arguments)...).clone(at::MemoryFormat::Contiguous);
  }
};

template <class Copy, class View>
void add_copy() {
  add_computed_when<Copy, has_tangents, Copied<View>::copy>();
}

}  // namespace

void register_copies_derivatives() {
  using namespace at::_ops;
  add_computed_when<at::_ops::frac, has_tangents, functorch_ext::frac>();
  add_copy<alias_copy, alias>();
  add_copy<as_strided_copy, as_strided>();
  add_copy<expand_copy, expand>();
  add_copy<permute_copy, permute>();
  add_copy<squeeze_copy, squeeze>();
  add_copy<squeeze_copy_dim, squeeze_dim>();
  add_copy<squeeze_copy_dims, squeeze_dims>();
  add_copy<t_copy, t>();
  add_copy<transpose_copy_int, transpose_int>();
  add_copy<unfold_copy, unfold>();
  add_copy<unsqueeze_copy, unsqueeze>();
  add_copy<view_copy, view>();
}

}  // namespace functorch_ext
