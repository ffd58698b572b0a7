#include "batching/values.h"

#include <ATen/Dispatch_v2.h>

#include "batching/operators.h"
#include "engine/below_all_levels.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace functorch_ext {

namespace {

bool has_numbers(const at::Tensor& plain) {
  return !plain.is_meta() && !plain.key_set().has(c10::DispatchKey::Python);
}

}  // namespace

bool holds_for_all(const at::Tensor& condition) {
  const auto plain = below_all_levels(condition).detach();
  // A check is not part of what a tracer records.
  const c10::impl::ExcludeDispatchKeyGuard untraced(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  return !has_numbers(plain) || plain.all().item<bool>();
}

void check_indices(const at::Tensor& indices, const c10::SymInt& size) {
  const auto plain = below_all_levels(indices).detach();
  const c10::impl::ExcludeDispatchKeyGuard untraced(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  const auto end = size.maybe_as_int();
  if (!has_numbers(plain) || !end || plain.numel() == 0) {
    return;
  }
  if (!plain.is_cpu()) {
    // Without waiting for the device.
    at::_assert_async(plain.ge(0).logical_and(plain.lt(*end)).all(), "index out of range in self");
    return;
  }
  const auto [smallest, largest] = at::aminmax(plain);
  TORCH_CHECK_INDEX(smallest.item<int64_t>() >= 0 && largest.item<int64_t>() < *end,
                    "index out of range in self: expected numbers from 0 to ", *end - 1,
                    ", but got ", smallest.item<int64_t>(), " to ", largest.item<int64_t>());
}

void check_fits(const at::Tensor& numbers, at::ScalarType dtype) {
  const auto own = numbers.scalar_type();
  if (own == dtype || own == at::kBool || dtype == at::kDouble || dtype == at::kComplexDouble) {
    return;
  }
  const auto plain = below_all_levels(numbers).detach();
  const c10::impl::ExcludeDispatchKeyGuard untraced(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  if (!has_numbers(plain)) {
    return;
  }
  AT_DISPATCH_V2(
      dtype, "check_fits", AT_WRAP([&] {
        const auto check = [&]<class Wide>(at::ScalarType wide) {
          const auto flat = plain.to(at::kCPU, wide).flatten();
          for (const auto number : c10::ArrayRef<Wide>(flat.const_data_ptr<Wide>(), flat.numel())) {
            at::Scalar(number).to<scalar_t>();
          }
        };
        if (at::isComplexType(own)) {
          check.template operator()<c10::complex<double>>(at::kComplexDouble);
        } else if (at::isFloatingType(own)) {
          check.template operator()<double>(at::kDouble);
        } else {
          check.template operator()<int64_t>(at::kLong);
        }
      }),
      AT_EXPAND(AT_ALL_TYPES_AND_COMPLEX), at::kHalf, at::kBFloat16, at::kBool);
}

std::optional<at::Tensor> agreed_value(const at::Tensor& tensor) {
  at::Tensor value = tensor;
  while (is_wrapper(value)) {
    const auto* wrapper = wrapper_of(value);
    if (!wrapper->is_batched()) {
      value = wrapper->value();
      continue;
    }
    const auto samples = wrapper->value().movedim(wrapper->bdim(), 0);
    if (samples.sym_size(0) == 0) {
      return std::nullopt;
    }
    const auto first = samples.select(0, 0);
    if (!below_all_levels(samples.eq(first)).detach().all().item<bool>()) {
      return std::nullopt;
    }
    value = first;
  }
  return value;
}

std::optional<int64_t> agreed_count(const at::Tensor& mask) {
  const auto counts = below_all_levels(mask.count_nonzero()).detach();
  const c10::impl::ExcludeDispatchKeyGuard untraced(
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot}));
  if (!has_numbers(counts) || counts.numel() == 0) {
    return std::nullopt;
  }
  const auto [smallest, largest] = at::aminmax(counts.flatten());
  const auto count = smallest.item<int64_t>();
  return count == largest.item<int64_t>() ? std::optional(count) : std::nullopt;
}

at::Tensor evenly_spaced(const at::Tensor& start, const at::Tensor& end, int64_t steps) {
  const auto first = start.unsqueeze(-1);
  if (steps == 1) {
    // As wide as both.
    return first + at::zeros_like(end).unsqueeze(-1);
  }
  const auto last = end.unsqueeze(-1);
  const auto place = at::arange(steps, start.options().dtype(at::kLong));
  const auto step = (last - first) / (steps - 1);
  return at::where(place.lt(steps / 2), first + step * place, last - step * (steps - 1 - place));
}

}  // namespace functorch_ext
