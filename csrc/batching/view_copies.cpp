// Views that copy: the operators that functionalize turns views into.
#include <ATen/core/LegacyTypeDispatch.h>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

at::Tensor fresh(const at::Tensor& view) {
  return view.clone(at::MemoryFormat::Contiguous);
}

std::vector<at::Tensor> fresh(std::vector<at::Tensor> views) {
  for (auto& view : views) {
    view = fresh(view);
  }
  return views;
}

// The view of each sample, copied.
template <class View, class Signature = typename View::schema>
struct Copied;
template <class View, class Return, class... Parameters>
struct Copied<View, Return(Parameters...)> {
  static Return rule(Level&, Parameters... arguments) {
    const at::AutoDispatchBelowADInplaceOrView autograd_is_done;
    return fresh(View::call(std::forward<Parameters>(arguments)...));
  }
};

at::Tensor narrow_copy_rule(Level&, const at::Tensor& self, int64_t dim, c10::SymInt start,
                            c10::SymInt length) {
  const at::AutoDispatchBelowADInplaceOrView autograd_is_done;
  return fresh(self.narrow_symint(dim, std::move(start), std::move(length)));
}

at::Tensor reshape_alias_copy_rule(Level&, const at::Tensor& self, c10::SymIntArrayRef size,
                                   c10::SymIntArrayRef) {
  const at::AutoDispatchBelowADInplaceOrView autograd_is_done;
  return fresh(self.reshape_symint(size));
}

template <class Copy, class View>
void add_copy() {
  add<Copy>(Copied<View>::rule);
}

}  // namespace

void register_view_copies_rules() {
  using namespace at::_ops;
  add_copy<alias_copy, alias>();
  add_copy<as_strided_copy, as_strided>();
  add_copy<detach_copy, detach>();
  add_copy<diagonal_copy, diagonal>();
  add_copy<expand_copy, expand>();
  add_copy<lift_fresh_copy, alias>();
  add<at::_ops::narrow_copy>(narrow_copy_rule);
  add_copy<permute_copy, permute>();
  add_copy<select_copy_int, select_int>();
  add_copy<slice_copy_Tensor, slice_Tensor>();
  add_copy<split_copy_Tensor, split_Tensor>();
  add_copy<split_with_sizes_copy, split_with_sizes>();
  add_copy<squeeze_copy, squeeze>();
  add_copy<squeeze_copy_dim, squeeze_dim>();
  add_copy<squeeze_copy_dims, squeeze_dims>();
  add_copy<t_copy, t>();
  add_copy<transpose_copy_int, transpose_int>();
  add_copy<unbind_copy_int, unbind_int>();
  add_copy<unfold_copy, unfold>();
  add_copy<unsqueeze_copy, unsqueeze>();
  add_copy<view_as_complex_copy, view_as_complex>();
  add_copy<view_as_real_copy, view_as_real>();
  add_copy<view_copy, reshape>();
  add_copy<view_copy_dtype, view_dtype>();
  add_copy<_reshape_copy, reshape>();
  add<_reshape_alias_copy>(reshape_alias_copy_rule);
  add_copy<_conj_copy, _conj>();
  add_copy<_neg_view_copy, _neg_view>();
}

}  // namespace functorch_ext
