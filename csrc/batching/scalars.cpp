// Reading a number out of a tensor, as .item(), bool() and if statements do: an answer where the
// samples agree.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "engine/below_all_levels.h"

namespace functorch_ext {

namespace {

// The tensor below all levels, the samples of each in one dimension; what they agree on is the
// number that each of them would read.
at::Scalar local_scalar_dense_rule(Level& level, const at::Tensor& self) {
  const auto values = below_all_levels(value_of(self, level)).detach().flatten();
  TORCH_CHECK(values.sym_numel() > 0,
              "functorch_ext.vmap: there is no sample to read a number of "
              "(.item(), bool() or an if statement on a tensor): the batch is empty.");
  const auto first = values.select(0, 0);
  const auto both_nan = at::isnan(values).logical_and_(at::isnan(first));
  const bool agree = at::eq(values, first).logical_or_(both_nan).all().item<bool>();
  TORCH_CHECK(
      agree,
      "functorch_ext.vmap: a number is read out of a batched tensor, by .item() on a Tensor or in "
      "data-dependent control flow (bool(), int(), an if statement on a tensor), but the samples "
      "differ. Use torch.where, torch.cond, torch.while_loop or another tensor operation instead.");
  return first.item();
}

bool equal_rule(Level& level, const at::Tensor& self, const at::Tensor& other) {
  return self.sym_sizes() == other.sym_sizes() &&
         local_scalar_dense_rule(level, at::eq(self, other).all()).toBool();
}

bool allclose_rule(Level& level, const at::Tensor& self, const at::Tensor& other, double rtol,
                   double atol, bool equal_nan) {
  const auto close = at::isclose(self, other, rtol, atol, equal_nan).all();
  return local_scalar_dense_rule(level, close).toBool();
}

// Functions that make a tensor of nested lists read its elements with our kernels switched off, so
// that they end here. torch.tensor and its like stack them instead
// (functorch_ext/_patches/makers.py).
at::Scalar item_of_list_element(const at::Tensor&) {
  TORCH_CHECK(
      false,
      "functorch_ext: PyTorch would read a tensor of a transform as a number, an element of "
      "a list that it makes a tensor of. Use torch.stack, or torch.tensor([...]), which "
      "stacks such elements.");
}

}  // namespace

void register_scalars_rules() {
  register_kernel(c10::Dispatcher::singleton().findSchemaOrThrow("aten::item", ""), wrapper_key,
                  c10::KernelFunction::makeFromUnboxedRuntimeFunction(&item_of_list_element));
  add<at::_ops::_local_scalar_dense>(local_scalar_dense_rule);
  add<at::_ops::equal>(equal_rule);
  add<at::_ops::allclose>(allclose_rule);
}

}  // namespace functorch_ext
