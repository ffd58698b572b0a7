// Reductions over segments of different lengths.
#include "batching/families.h"
#include "batching/lengths.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

using Lengths = std::optional<at::Tensor>;

Lengths lengths_at_front(const Lengths& lengths, const Level& level) {
  return lengths && lengths->defined()
             ? std::optional(expanded_at_front(*lengths, level).contiguous())
             : std::nullopt;
}

int64_t axis_behind_samples(int64_t axis, const at::Tensor& data) {
  return physical_dim(axis, data.dim());
}

at::Tensor segment_reduce_rule(Level& level, const at::Tensor& data, c10::string_view reduce,
                               const Lengths& lengths, const Lengths& indices,
                               const Lengths& offsets, int64_t axis, bool unsafe,
                               const std::optional<at::Scalar>& initial) {
  check_segments(data, lengths, offsets, axis, unsafe);
  return wrap(
      at::segment_reduce(expanded_at_front(data, level), reduce, lengths_at_front(lengths, level),
                         lengths_at_front(indices, level), lengths_at_front(offsets, level),
                         axis_behind_samples(axis, data), unsafe || level.batch_size == 0, initial),
      0, level);
}

at::Tensor segment_reduce_backward_rule(Level& level, const at::Tensor& grad,
                                        const at::Tensor& output, const at::Tensor& data,
                                        c10::string_view reduce, const Lengths& lengths,
                                        const Lengths& offsets, int64_t axis,
                                        const std::optional<at::Scalar>& initial) {
  const auto value = [&](const at::Tensor& tensor) {
    return expanded_at_front(tensor, level).contiguous();
  };
  return wrap(at::_segment_reduce_backward(
                  value(grad), value(output), value(data), reduce, lengths_at_front(lengths, level),
                  lengths_at_front(offsets, level), axis_behind_samples(axis, data), initial),
              0, level);
}

}  // namespace

void register_segments_rules() {
  add<at::_ops::segment_reduce>(segment_reduce_rule);
  add<at::_ops::_segment_reduce_backward>(segment_reduce_backward_rule);
}

}  // namespace functorch_ext
