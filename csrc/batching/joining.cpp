// One tensor made of several.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

std::vector<at::Tensor> all_at_front(at::TensorList tensors, const Level& level) {
  std::vector<at::Tensor> values;
  values.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    values.push_back(expanded_at_front(tensor, level));
  }
  return values;
}

// Tensors of shape (0,) go with tensors of any rank and add nothing.
at::Tensor cat_rule(Level& level, const at::ITensorListRef& tensors, int64_t dim) {
  std::vector<at::Tensor> joined;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.dim() != 1 || tensor.sym_size(0) != 0) {
      joined.push_back(tensor);
    }
  }
  if (joined.empty()) {
    joined.assign(tensors.begin(), tensors.end());
  }
  for (const auto& tensor : joined) {
    TORCH_CHECK(tensor.dim() > 0, "cat: a tensor without dimensions cannot be concatenated");
  }
  const auto physical = physical_dim(dim, joined[0].dim());
  return wrap(at::cat(all_at_front(joined, level), physical), 0, level);
}

template <class Op>
at::Tensor stack_rule(Level& level, at::TensorList tensors, int64_t dim) {
  const auto physical = physical_dim(dim, tensors[0].dim() + 1);
  return wrap(Op::call(all_at_front(tensors, level), physical), 0, level);
}

at::Tensor block_diag_rule(Level& level, at::TensorList tensors) {
  std::vector<at::Tensor> blocks;
  c10::SymInt columns = 0;
  for (const auto& tensor : tensors) {
    TORCH_CHECK(tensor.dim() <= 2, "block_diag: a tensor has more than 2 dimensions");
    auto block = expanded_at_front(tensor, level);
    while (block.dim() < 3) {
      block = block.unsqueeze(1);
    }
    columns += block.sym_size(2);
    blocks.push_back(std::move(block));
  }
  c10::SymInt before = 0;
  for (auto& block : blocks) {
    const auto width = block.sym_size(2);
    block = at::constant_pad_nd_symint(block, {before, columns - before - width});
    before += width;
  }
  return wrap(at::cat(blocks, 1), 0, level);
}

}  // namespace

void register_joining_rules() {
  add<at::_ops::cat>(cat_rule);
  add<at::_ops::stack>(stack_rule<at::_ops::stack>);
  add<at::_ops::_stack>(stack_rule<at::_ops::_stack>);
  add<at::_ops::block_diag>(block_diag_rule);
}

}  // namespace functorch_ext
