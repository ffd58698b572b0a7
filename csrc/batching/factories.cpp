// New tensors in the image of a batched one: they are batched too, so that a value that differs
// between samples can be written into them. And the writing itself: copy_, fill_, zero_.
#include <algorithm>
#include <numeric>

#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"

namespace functorch_ext {

namespace {

constexpr bool is_channels_last(const std::optional<at::MemoryFormat>& format) {
  return format == at::MemoryFormat::ChannelsLast || format == at::MemoryFormat::ChannelsLast3d;
}

template <class Argument>
bool asks_for_channels_last(const Argument& argument) {
  if constexpr (std::is_same_v<Argument, std::optional<at::MemoryFormat>>) {
    return is_channels_last(argument);
  } else {
    return false;
  }
}

template <class Argument>
bool asks_for_contiguous(const Argument& argument) {
  if constexpr (std::is_same_v<Argument, std::optional<at::MemoryFormat>>) {
    return argument == at::MemoryFormat::Contiguous;
  } else {
    return false;
  }
}

// The argument, or Contiguous for a memory format.
template <class Argument>
Argument in_order(Argument argument) {
  if constexpr (std::is_same_v<Argument, std::optional<at::MemoryFormat>>) {
    return at::MemoryFormat::Contiguous;
  } else {
    return argument;
  }
}

// Is a dimension expanded, so that memory has no order for it?
bool is_expanded(const at::Tensor& value, int64_t dim) {
  return value.size(dim) > 1 && value.stride(dim) == 0;
}

// Do the samples lie one after another in memory, rather than within each other?
bool are_apart(const at::Tensor& value, int64_t bdim) {
  if (value.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return true;
  }
  const auto step = value.stride(bdim);
  for (int64_t dim = 0; dim < value.dim(); ++dim) {
    if ((value.size(dim) > 1 && value.stride(dim) > step) || is_expanded(value, dim)) {
      return false;
    }
  }
  return true;
}

// The physical dimensions in the order of memory, the samples first.
std::vector<int64_t> order_in_memory(const at::Tensor& value) {
  std::vector<int64_t> order(value.dim());
  std::iota(order.begin(), order.end(), 0);
  if (std::none_of(order.begin() + 1, order.end(),
                   [&](int64_t dim) { return is_expanded(value, dim); })) {
    std::stable_sort(order.begin() + 1, order.end(), [&](int64_t first, int64_t second) {
      return value.stride(first) > value.stride(second);
    });
  }
  return order;
}

std::vector<int64_t> inverse(const std::vector<int64_t>& order) {
  std::vector<int64_t> places(order.size());
  for (size_t place = 0; place < order.size(); ++place) {
    places[order[place]] = static_cast<int64_t>(place);
  }
  return places;
}

// A tensor of the same shape. Channels-last formats are for values of one rank only: there the
// samples join N. For each sample to be contiguous they have to be in front.
template <class Signature>
struct Like;

template <class... Parameters>
struct Like<at::Tensor(Parameters...)> {
  static at::Tensor rule(const Operator<at::Tensor(Parameters...)>& op, Level& level,
                         Parameters... arguments) {
    if ((asks_for_channels_last(arguments) || ...)) {
      return MergedIntoN<0>::Family<at::Tensor(Parameters...)>::rule(
          op, level, std::forward<Parameters>(arguments)...);
    }
    if ((asks_for_contiguous(arguments) || ...)) {
      return wrap(call_rewritten<at::Tensor, Parameters...>(
                      op.call, [&](const at::Tensor& self) { return at_front(self, level); },
                      std::forward<Parameters>(arguments)...),
                  0, level);
    }
    const auto& self = first_tensor(arguments...);
    if (C10_UNLIKELY(!are_apart(value_of(self, level), bdim_of(self, level)))) {
      // A sample is laid out as it would be by itself.
      const auto value = at_front(self, level);
      const auto order = order_in_memory(value);
      const auto result = call_rewritten<at::Tensor, Parameters...>(
          op.call, [&](const at::Tensor&) { return value.permute(order); },
          in_order<Parameters>(arguments)...);
      return wrap(result.permute(inverse(order)), 0, level);
    }
    return Pointwise<at::Tensor(Parameters...)>::rule(op, level,
                                                      std::forward<Parameters>(arguments)...);
  }
};

// new_zeros(size) and its like: the same with the batch size in front.
template <class Signature>
struct New;

template <class... Parameters>
struct New<at::Tensor(const at::Tensor&, c10::SymIntArrayRef, Parameters...)> {
  using Signature = at::Tensor(const at::Tensor&, c10::SymIntArrayRef, Parameters...);
  static at::Tensor rule(const Operator<Signature>& op, Level& level, const at::Tensor& self,
                         c10::SymIntArrayRef size, Parameters... arguments) {
    return wrap(op.call(value_of(self, level), physical_sizes(size, level),
                        std::forward<Parameters>(arguments)...),
                0, level);
  }
};

at::Tensor new_empty_strided_rule(Level& level, const at::Tensor& self, c10::SymIntArrayRef size,
                                  c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                                  std::optional<at::Layout> layout,
                                  std::optional<at::Device> device, std::optional<bool> pinned) {
  TORCH_CHECK(size.size() == stride.size(), "new_empty_strided: ", size.size(), " sizes and ",
              stride.size(), " strides");
  // Sample after sample, each in as much memory as it reaches over.
  c10::SymInt extent = 1;
  for (size_t dim = 0; dim < size.size(); ++dim) {
    if (size[dim] == 0) {
      extent = 0;
      break;
    }
    extent += (size[dim] - 1) * stride[dim];
  }
  std::vector<c10::SymInt> strides = {extent};
  strides.insert(strides.end(), stride.begin(), stride.end());
  return wrap(value_of(self, level)
                  .new_empty_strided_symint(physical_sizes(size, level), strides, dtype, layout,
                                            device, pinned),
              0, level);
}

[[noreturn]] void raise_no_resize(const char* name) {
  TORCH_CHECK(false, "functorch_ext.vmap: ", name,
              " can't change the size of a batched tensor, whose memory holds all samples. Make a "
              "new tensor instead, for example with x.new_empty(...).");
}

at::Tensor resize_rule(Level&, const at::Tensor&, c10::SymIntArrayRef,
                       std::optional<at::MemoryFormat>) {
  raise_no_resize("resize");
}

const at::Tensor& resize_in_place_rule(Level& level, const at::Tensor& self,
                                       c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != size) {
    raise_no_resize("resize_");
  }
  return self;
}

const at::Tensor& resize_as_in_place_rule(Level& level, const at::Tensor& self,
                                          const at::Tensor& the_template,
                                          std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != the_template.sym_sizes()) {
    raise_no_resize("resize_as_");
  }
  return self;
}

// Between bounds that are tensors, linspace and, with a base, logspace. Integers are rounded down
// from double precision, as PyTorch does.
at::Tensor spaced(const at::Tensor& start, const at::Tensor& end, int64_t steps,
                  std::optional<double> base, std::optional<at::ScalarType> dtype,
                  std::optional<at::Device> device, const Level& level) {
  TORCH_CHECK(start.dim() == 0 && end.dim() == 0, base ? "logspace" : "linspace",
              " only supports 0-dimensional start and end tensors, got ", start.dim(), " and ",
              end.dim(), " dimensions");
  TORCH_CHECK(steps >= 0, "number of steps must be non-negative");
  const bool complex = start.is_complex() || end.is_complex();
  const auto real = at::typeMetaToScalarType(at::get_default_dtype());
  const auto result = dtype.value_or(complex ? at::toComplexType(real) : real);
  const bool integers = at::isIntegralType(result, true);
  const auto bound = [&](const at::Tensor& given) {
    const auto value = at_front(given, level).to(result);
    return integers ? value.to(at::kDouble) : value;
  };
  auto values = evenly_spaced(bound(start), bound(end), steps);
  if (base) {
    values = at::pow(at::Scalar(*base), values);
  }
  return wrap(values.to(values.options().dtype(result).device(device.value_or(values.device()))), 0,
              level);
}

// The forms that take a number for one of the bounds.
at::Tensor as_tensor(const at::Scalar& bound, const at::Tensor& other) {
  return at::scalar_tensor(bound, at::TensorOptions(other.device()).dtype(bound.type()));
}

template <class Function>
at::Tensor with_tensors(const at::Tensor& start, const at::Tensor& end, const Function& function) {
  return function(start, end);
}
template <class Function>
at::Tensor with_tensors(const at::Tensor& start, const at::Scalar& end, const Function& function) {
  return function(start, as_tensor(end, start));
}
template <class Function>
at::Tensor with_tensors(const at::Scalar& start, const at::Tensor& end, const Function& function) {
  return function(as_tensor(start, end), end);
}

template <class Start, class End>
at::Tensor linspace_rule(Level& level, Start start, End end, int64_t steps,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  return with_tensors(start, end, [&](const at::Tensor& first, const at::Tensor& last) {
    return spaced(first, last, steps, std::nullopt, dtype, device, level);
  });
}

template <class Start, class End>
at::Tensor logspace_rule(Level& level, Start start, End end, int64_t steps, double base,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  return with_tensors(start, end, [&](const at::Tensor& first, const at::Tensor& last) {
    return spaced(first, last, steps, base, dtype, device, level);
  });
}

bool is_same_size_rule(Level&, const at::Tensor& self, const at::Tensor& other) {
  return self.sym_sizes() == other.sym_sizes();
}

}  // namespace

void register_factories_rules() {
  add<at::_ops::zeros_like, Like>();
  add<at::_ops::ones_like, Like>();
  add<at::_ops::full_like, Like>();
  add<at::_ops::empty_like, Like>();
  add<at::_ops::clone, Like>();
  add<at::_ops::_to_copy, Like>();
  add<at::_ops::new_zeros, New>();
  add<at::_ops::new_ones, New>();
  add<at::_ops::new_full, New>();
  add<at::_ops::new_empty, New>();
  add<at::_ops::new_empty_strided>(new_empty_strided_rule);

  using at::Scalar;
  using at::Tensor;
  add<at::_ops::linspace_Tensor_Tensor>(linspace_rule<const Tensor&, const Tensor&>);
  add<at::_ops::linspace_Tensor_Scalar>(linspace_rule<const Tensor&, const Scalar&>);
  add<at::_ops::linspace_Scalar_Tensor>(linspace_rule<const Scalar&, const Tensor&>);
  add<at::_ops::logspace_Tensor_Tensor>(logspace_rule<const Tensor&, const Tensor&>);
  add<at::_ops::logspace_Tensor_Scalar>(logspace_rule<const Tensor&, const Scalar&>);
  add<at::_ops::logspace_Scalar_Tensor>(logspace_rule<const Scalar&, const Tensor&>);

  add<at::_ops::resize>(resize_rule);
  add<at::_ops::resize_>(resize_in_place_rule);
  add<at::_ops::resize_as_>(resize_as_in_place_rule);
  add<at::_ops::is_same_size>(is_same_size_rule);
}

}  // namespace functorch_ext
