// Views that copy. Their derivatives are those of the views; PyTorch has none of some, or tangents
// that it lets share memory with those of the argument, where the result shares none
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

// PyTorch has no derivative of some copies if they are complex, and silently none of another dtype.
template <class Copy, class View>
void add_differentiable_copy() {
  add_computed_when<Copy, is_differentiated_here, Copied<View>::copy>();
}

at::Tensor reshape_alias_copy(const at::Tensor& self, c10::SymIntArrayRef size,
                              c10::SymIntArrayRef) {
  return self.reshape_symint(size).clone(at::MemoryFormat::Contiguous);
}

template <class Copy, class View>
void add_copy() {
  add_computed_when<Copy, has_tangents, Copied<View>::copy>();
}

}  // namespace

void register_view_copies_derivatives() {
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
  add_differentiable_copy<lift_fresh_copy, alias>();
  add_differentiable_copy<select_copy_int, select_int>();
  add_differentiable_copy<slice_copy_Tensor, slice_Tensor>();
  add_differentiable_copy<view_as_complex_copy, view_as_complex>();
  add_differentiable_copy<view_copy_dtype, view_dtype>();
  add_differentiable_copy<_conj_copy, _conj>();
  add_differentiable_copy<_neg_view_copy, _neg_view>();
  add_computed_when<_reshape_alias_copy, is_differentiated_here,
                    functorch_ext::reshape_alias_copy>();
}

}  // namespace functorch_ext
