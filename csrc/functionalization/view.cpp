#include "functionalization/view.h"

#include <ATen/Functions.h>
#include <ATen/TensorUtils.h>

#include <unordered_map>

#include "engine/boxed.h"
#include "engine/routing.h"
#include "engine/variants.h"

namespace functorch_ext {

namespace {

// What an inverse works with.
struct Write {
  const View& view;
  const std::function<at::Tensor()>& parent;
  const at::Tensor& written;
  ViewStyle style;

  int64_t integer(size_t position) const {
    return view.arguments[position].toInt();
  }
  c10::SymInt symbol(size_t position) const {
    return view.arguments[position].toSymInt();
  }
  // Calls a view operator that undoes this one.
  template <class... Arguments>
  at::Tensor undo(const c10::OperatorHandle& op, Arguments... arguments) const {
    return call_view(op, {written, std::move(arguments)...}, style)[0];
  }
};

using Inverse = at::Tensor (*)(const Write&);

at::Tensor same_elements(const Write& write) {
  return reshaped(write.written, write.view.parent_sizes, write.style);
}

at::Tensor identity(const Write& write) {
  return write.written;
}

// Views that undo themselves.
at::Tensor again(const Write& write) {
  return write.undo(write.view.op);
}

at::Tensor transposed(const Write& write) {
  return write.undo(write.view.op, write.integer(1), write.integer(2));
}

at::Tensor permuted(const Write& write) {
  const auto dims = write.view.arguments[1].toIntVector();
  const auto rank = static_cast<int64_t>(dims.size());
  std::vector<int64_t> inverse(dims.size());
  for (int64_t dim = 0; dim < rank; ++dim) {
    inverse[dims[dim] < 0 ? dims[dim] + rank : dims[dim]] = dim;
  }
  return write.undo(write.view.op, inverse);
}

at::Tensor expanded(const Write& write) {
  TORCH_CHECK(c10::multiply_integers(write.view.parent_sizes) == write.written.sym_numel(),
              "functorch_ext.functionalize: a write to an expanded tensor, several elements of "
              "which are one in memory. Clone it before writing.");
  return same_elements(write);
}

at::Tensor selected(const Write& write) {
  return at::select_scatter_symint(write.parent(), write.written, write.integer(1),
                                   write.symbol(2));
}

at::Tensor sliced(const Write& write) {
  const auto bound = [&](size_t position) -> std::optional<c10::SymInt> {
    const auto& value = write.view.arguments[position];
    return value.isNone() ? std::nullopt : std::optional(value.toSymInt());
  };
  return at::slice_scatter_symint(write.parent(), write.written, write.integer(1), bound(2),
                                  bound(3), write.symbol(4));
}

at::Tensor diagonal(const Write& write) {
  return at::diagonal_scatter(write.parent(), write.written, write.integer(1), write.integer(2),
                              write.integer(3));
}

at::Tensor piece(const Write& write, int64_t dim, const c10::SymInt& start) {
  const auto wrapped = dim < 0 ? dim + static_cast<int64_t>(write.view.sizes.size()) : dim;
  return at::slice_scatter_symint(write.parent(), write.written, dim, start,
                                  start + write.view.sizes[wrapped], 1);
}

at::Tensor piece_of_split(const Write& write) {
  return piece(write, write.integer(2), write.symbol(1) * static_cast<int64_t>(write.view.output));
}

at::Tensor piece_of_split_with_sizes(const Write& write) {
  const auto sizes = write.view.arguments[1].toSymIntVector();
  c10::SymInt start = 0;
  for (size_t i = 0; i < write.view.output; ++i) {
    start += sizes[i];
  }
  return piece(write, write.integer(2), start);
}

at::Tensor piece_of_unbind(const Write& write) {
  return at::select_scatter(write.parent(), write.written, write.integer(1),
                            static_cast<int64_t>(write.view.output));
}

at::Tensor strided(const Write& write) {
  return at::as_strided_scatter_symint(write.parent(), write.written,
                                       write.view.arguments[1].toSymIntVector(),
                                       write.view.arguments[2].toSymIntVector(), write.symbol(3));
}

at::Tensor of_dtype(const Write& write) {
  return write.undo(write.view.op, write.view.parent_dtype);
}

at::Tensor as_complex(const Write& write) {
  return write.undo(operator_called("aten::view_as_complex"));
}

at::Tensor as_real(const Write& write) {
  return write.undo(operator_called("aten::view_as_real"));
}

// Any other view: where its elements lie is found out by viewing the positions.
at::Tensor at_positions(const Write& write) {
  const auto parent = write.parent();
  auto view = write.view;
  const auto positions =
      replay(view,
             reshaped(at::arange(parent.sym_numel(), parent.options().dtype(at::kLong)),
                      view.parent_sizes, ViewStyle::Copy),
             ViewStyle::Copy);
  const auto flat = at::scatter(reshaped(parent, {parent.sym_numel()}, write.style), 0,
                                reshaped(positions, {positions.sym_numel()}, ViewStyle::Copy),
                                reshaped(write.written, {positions.sym_numel()}, write.style));
  return reshaped(flat, view.parent_sizes, write.style);
}

Inverse inverse_of(const c10::OperatorHandle& op) {
  static const auto* inverses = new std::unordered_map<std::string, Inverse>{
      {"aten::view", same_elements},
      {"aten::unsqueeze", same_elements},
      {"aten::squeeze", same_elements},
      {"aten::squeeze.dim", same_elements},
      {"aten::squeeze.dims", same_elements},
      {"aten::alias", identity},
      {"aten::detach", again},
      {"aten::t", again},
      {"aten::_conj", again},
      {"aten::_neg_view", again},
      {"aten::transpose.int", transposed},
      {"aten::permute", permuted},
      {"aten::expand", expanded},
      {"aten::select.int", selected},
      {"aten::slice.Tensor", sliced},
      {"aten::diagonal", diagonal},
      {"aten::split.Tensor", piece_of_split},
      {"aten::split_with_sizes", piece_of_split_with_sizes},
      {"aten::unbind.int", piece_of_unbind},
      {"aten::as_strided", strided},
      {"aten::view.dtype", of_dtype},
      {"aten::view_as_real", as_complex},
      {"aten::view_as_complex", as_real},
  };
  const auto row = inverses->find(c10::toString(op.operator_name()));
  return row == inverses->end() ? at_positions : row->second;
}

// Of these, PyTorch has no derivatives for complex numbers.
bool lacks_complex_derivative(Inverse inverse) {
  return inverse == selected || inverse == sliced || inverse == diagonal ||
         inverse == piece_of_split || inverse == piece_of_split_with_sizes ||
         inverse == piece_of_unbind;
}

// Not of a tensor that is to be conjugated yet: the program's tensor doesn't show that its value
// is.
bool reads_memory(const c10::OperatorHandle& op) {
  return op.schema().name() == "aten::view_as_real" ||
         (op.schema().name() == "aten::view" && op.schema().overload_name() == "dtype");
}

}  // namespace

std::vector<at::Tensor> call_view(const c10::OperatorHandle& op, torch::jit::Stack arguments,
                                  ViewStyle style) {
  if (reads_memory(op)) {
    rewrite_stack(arguments, arguments.size(),
                  [](const at::Tensor& tensor) { return tensor.resolve_conj().resolve_neg(); });
  }
  std::optional<c10::OperatorHandle> variant;
  if (style == ViewStyle::Copy && op.schema().name() == "aten::detach") {
    // detach_copy has no derivative; where there is nothing to cut it isn't needed.
    const auto& value = arguments[0].toTensor();
    return {is_wrapper(value) || is_differentiated(value) ? value.detach().clone() : value};
  }
  // Most operators that copy have no derivative for complex numbers.
  const bool makes_complex = op.schema().name() == "aten::view_as_complex";
  const auto differentiated = [&](const c10::IValue& value) {
    return value.isTensor() && (makes_complex || value.toTensor().is_complex()) &&
           is_differentiated(value.toTensor());
  };
  if (style == ViewStyle::Copy && !differentiated(arguments[0])) {
    variant = view_copy_variant(op);
  }
  (variant ? *variant : op).callBoxed(&arguments);
  std::vector<at::Tensor> results;
  rewrite_stack(arguments, arguments.size(), [&](const at::Tensor& result) {
    results.push_back(style == ViewStyle::Copy && !variant ? result.clone() : result);
    return result;
  });
  return results;
}

at::Tensor reshaped(const at::Tensor& value, c10::SymIntArrayRef sizes, ViewStyle style) {
  return style == ViewStyle::Copy ? at::view_copy_symint(value, sizes)
                                  : value.reshape_symint(sizes);
}

at::Tensor replay(const View& view, const at::Tensor& parent, ViewStyle style) {
  // A value that a mutation replaced may be laid out in another way than the program's tensor.
  static const auto* plain_view = new c10::OperatorHandle(operator_called("aten::view"));
  if (view.op == *plain_view && style == ViewStyle::View &&
      !at::detail::computeStride(parent.sym_sizes(), parent.sym_strides(),
                                 c10::SymIntArrayRef(view.sizes))) {
    return parent.reshape_symint(view.sizes);
  }
  auto arguments = view.arguments;
  arguments[view.self] = parent;
  return call_view(view.op, std::move(arguments), style)[view.output];
}

at::Tensor write_through(const View& view, const std::function<at::Tensor()>& parent,
                         const at::Tensor& written, ViewStyle style) {
  const auto inverse = inverse_of(view.op);
  const bool complex = C10_UNLIKELY(written.is_complex()) && lacks_complex_derivative(inverse);
  return (complex ? at_positions : inverse)({view, parent, written, style});
}

}  // namespace functorch_ext
