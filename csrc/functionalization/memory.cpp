#include "functionalization/memory.h"

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include "engine/boxed.h"
#include "engine/variants.h"
#include "functionalization/geometry.h"
#include "functionalization/level.h"

#include <algorithm>

namespace functorch_ext {

namespace {

ViewStyle style_of(const Level& level) {
  return removes_views(level) ? ViewStyle::Copy : ViewStyle::View;
}

bool is_strided(const c10::OperatorHandle& op) {
  return op.schema().name() == "aten::as_strided";
}

// A view by strides starts from the memory itself, so it is the first of its chain.
at::Tensor start(const Place& place, View& view) {
  c10::SymInt shift = 0;
  auto value = place.memory->laid_out(shift);
  view.arguments[3] = view.arguments[3].toSymInt() + shift;
  return value;
}

at::Tensor replay_all(const Place& place, size_t count, ViewStyle style) {
  auto value = place.memory->value;
  for (size_t i = 0; i < count; ++i) {
    if (is_strided(place.chain[i].op)) {
      auto view = place.chain[i];
      value = start(place, view);
      value = replay(view, value, style);
    } else {
      value = replay(place.chain[i], value, style);
    }
  }
  return value;
}

size_t position_of_viewed(const c10::OperatorHandle& op) {
  const auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].alias_info() && !arguments[i].alias_info()->isWrite()) {
      return i;
    }
  }
  return 0;
}

// Operators that return their argument as it is, as far as other planes are concerned.
bool is_identity(const c10::OperatorHandle& op) {
  const auto& name = op.schema().name();
  return name == "aten::alias" || name == "aten::lift_fresh" || name == "aten::_fw_primal" ||
         name == "aten::_make_dual";
}

}  // namespace

void Memory::replace(at::Tensor written) {
  if (generation++ == 0) {
    strides = value.sym_strides().vec();
    offset = value.sym_storage_offset();
    if (!value.is_non_overlapping_and_dense()) {
      first = value.detach();
    }
  }
  value = std::move(written);
}

at::Tensor Memory::laid_out(c10::SymInt& shift) const {
  if (generation == 0) {
    return value;
  }
  auto result = value;
  if (value.sym_strides() != c10::SymIntArrayRef(strides)) {
    const auto sizes = value.sym_sizes();
    result = first.defined() ? at::as_strided_scatter_symint(first, value, sizes, strides, offset)
                             : at::as_strided_scatter_symint(
                                   at::empty_strided_symint(sizes, strides, value.options()), value,
                                   sizes, strides, 0);
  }
  shift = result.sym_storage_offset() - offset;
  return result;
}

void Place::update(WrapperImpl& wrapper) const {
  if (wrapper.generation() != memory->generation) {
    wrapper.set_functional_value(replay_all(*this, chain.size(), style_of(wrapper.level())),
                                 memory->generation);
  }
}

at::Tensor allocate(at::Tensor value, const Level& level) {
  auto memory = c10::make_intrusive<Memory>(value);
  auto tensor = wrap(std::move(value), no_bdim, level);
  wrapper_of(tensor)->set_aliasing(
      c10::make_intrusive<Place>(std::move(memory), std::vector<View>()), 0);
  return tensor;
}

at::Tensor current_value(const at::Tensor& tensor, const Level& level) {
  if (const auto* place = place_of(tensor, level)) {
    place->update(*wrapper_of(tensor));
  }
  return value_of(tensor, level);
}

const Place* place_of(const at::Tensor& tensor, const Level& level) {
  const auto* wrapper = wrapper_at(tensor, level);
  return wrapper ? static_cast<const Place*>(wrapper->aliasing().get()) : nullptr;
}

namespace {

at::Tensor strided_view_of(const at::Tensor& self, const Place& place, torch::jit::Stack arguments,
                           const Level& level) {
  if (arguments[3].isNone()) {
    arguments[3] = self.sym_storage_offset();
  }
  const bool reinterpreted =
      std::any_of(place.chain.begin(), place.chain.end(), [](const View& view) {
        const auto& name = view.op.schema().name();
        return name == "aten::_conj" || name == "aten::_neg_view";
      });
  TORCH_CHECK(!reinterpreted && self.scalar_type() == place.memory->value.scalar_type(),
              "functorch_ext.functionalize: as_strided of a view that isn't of its memory's dtype, "
              "or is conjugated, can't be expressed. Clone the view first.");
  const auto sizes = arguments[1].toSymIntVector();
  const auto strides = arguments[2].toSymIntVector();
  const auto offset = arguments[3].toSymInt();
  arguments[0] = c10::IValue();
  View view{operator_called("aten::as_strided"),
            std::move(arguments),
            0,
            0,
            place.memory->value.sym_sizes().vec(),
            sizes,
            self.scalar_type()};
  auto next = c10::make_intrusive<Place>(place.memory, std::vector<View>{std::move(view)});
  auto tensor = wrap(replay_all(*next, 1, style_of(level)), no_bdim, level);
  auto* wrapper = wrapper_of(tensor);
  wrapper->set_aliasing(std::move(next), place.memory->generation);
  wrapper->set_geometry(sizes, strides, offset);
  return tensor;
}

}  // namespace

std::vector<at::Tensor> view_of(const c10::OperatorHandle& given_op, torch::jit::Stack arguments,
                                const Level& level) {
  const auto self_position = position_of_viewed(given_op);
  const auto self = arguments[self_position].toTensor();
  rewrite_stack(arguments, arguments.size(),
                [&](const at::Tensor& tensor) { return current_value(tensor, level); });
  const auto* place = place_of(self, level);
  const auto style = style_of(level);

  auto op = given_op;
  if (op.schema().name() == "aten::_reshape_alias") {
    op = operator_called("aten::view");
    arguments.pop_back();
  }
  const auto& value = arguments[self_position].toTensor();
  const auto wrapped = [&](at::Tensor result, const std::vector<View>& chain) {
    auto tensor = wrap(std::move(result), no_bdim, level);
    if (place) {
      wrapper_of(tensor)->set_aliasing(c10::make_intrusive<Place>(place->memory, chain),
                                       place->memory->generation);
    }
    return tensor;
  };
  if (is_identity(op)) {
    auto tensor = wrapped(value, place ? place->chain : std::vector<View>());
    if (place) {
      wrapper_of(tensor)->set_geometry(*self.unsafeGetTensorImpl());
    }
    return {tensor};
  }

  if (is_strided(op) && place) {
    return {strided_view_of(self, *place, std::move(arguments), level)};
  }
  const auto geometries = geometries_of_view(op, arguments, self_position, self, value);
  View view{op, arguments, self_position, 0, self.sym_sizes().vec(), {}, self.scalar_type()};
  view.arguments[self_position] = c10::IValue();
  std::vector<at::Tensor> values;
  if (geometries.size() == 1) {
    view.sizes = geometries[0].sym_sizes().vec();
    values = {replay(view, value, style)};
  } else {
    values = call_view(op, arguments, style);
  }
  std::vector<at::Tensor> results;
  for (size_t i = 0; i < values.size(); ++i) {
    std::vector<View> chain;
    if (place) {
      chain = place->chain;
      view.output = i;
      view.sizes = values[i].sym_sizes().vec();
      chain.push_back(view);
    }
    results.push_back(wrapped(values[i], chain));
    if (!geometries.empty()) {
      wrapper_of(results.back())->set_geometry(*geometries[i].unsafeGetTensorImpl());
    }
  }
  return results;
}

namespace {

// Without grad mode a write changes numbers alone: derivatives go on to flow to where those before
// came from.
at::Tensor with_history_of(const at::Tensor& before, at::Tensor written) {
  if (c10::GradMode::is_enabled() || !before.requires_grad()) {
    return written;
  }
  at::Tensor result;
  {
    const at::AutoGradMode recording(true);
    result = before.clone();
  }
  return result.copy_(written);
}

}  // namespace

void write(const at::Tensor& tensor, at::Tensor value, const Level& level) {
  const auto& place = *place_of(tensor, level);
  const auto style = style_of(level);
  auto written = value;
  for (auto i = place.chain.size(); i-- > 0;) {
    auto view = place.chain[i];
    const auto parent = [&] {
      return is_strided(view.op) ? start(place, view) : replay_all(place, i, style);
    };
    written = write_through(view, parent, written, style);
  }
  const auto now = with_history_of(place.memory->value, written);
  place.memory->replace(now);
  if (now.is_same(written)) {
    wrapper_of(tensor)->set_functional_value(std::move(value), place.memory->generation);
  } else {
    place.update(*wrapper_of(tensor));
  }
}

void become(const at::Tensor& tensor, const at::Tensor& other) {
  auto* wrapper = wrapper_of(tensor);
  const auto* source = wrapper_of(other);
  wrapper->set_functional_value(source->value(), source->generation());
  wrapper->set_aliasing(source->aliasing(), source->generation());
  wrapper->set_geometry(*source);
}

}  // namespace functorch_ext
