// New tensors in the image of a batched one: they are batched too, so that a value that differs
// between samples can be written into them. And the writing itself: copy_, fill_, zero_.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

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

// A tensor of the same shape. Channels-last formats are for values of one rank only: there the
// samples join N.
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

at::Tensor& copy_in_place(Level& level, at::Tensor& self, const at::Tensor& src,
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

at::Tensor& fill_in_place(Level& level, at::Tensor& self, const at::Tensor& number) {
  TORCH_CHECK(number.dim() == 0, "fill_: the value must have no dimensions, got ", number.dim());
  return copy_in_place(level, self, number, false);
}

at::Tensor fill_rule(Level& level, const at::Tensor& self, const at::Tensor& number) {
  TORCH_CHECK(number.dim() == 0, "fill: the value must have no dimensions, got ", number.dim());
  return copy_rule(level, self, number, false);
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

const at::Tensor& resize_in_place(Level& level, const at::Tensor& self, c10::SymIntArrayRef size,
                                  std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != size) {
    raise_no_resize("resize_");
  }
  return self;
}

const at::Tensor& resize_as_in_place(Level& level, const at::Tensor& self,
                                     const at::Tensor& the_template,
                                     std::optional<at::MemoryFormat>) {
  if (self.sym_sizes() != the_template.sym_sizes()) {
    raise_no_resize("resize_as_");
  }
  return self;
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

  add<at::_ops::copy_>(copy_in_place);
  add<at::_ops::copy>(copy_rule);
  add<at::_ops::zero_, Pointwise>();
  add<at::_ops::zero, Pointwise>();
  add<at::_ops::fill__Scalar, Pointwise>();
  add<at::_ops::fill_Scalar, Pointwise>();
  add<at::_ops::fill__Tensor>(fill_in_place);
  add<at::_ops::fill_Tensor>(fill_rule);

  add<at::_ops::resize>(resize_rule);
  add<at::_ops::resize_>(resize_in_place);
  add<at::_ops::resize_as_>(resize_as_in_place);
  add<at::_ops::is_same_size>(is_same_size_rule);
}

}  // namespace functorch_ext
