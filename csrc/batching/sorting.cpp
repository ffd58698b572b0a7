// Order and membership: sorting and searching.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// For each number its place in a sorted sequence: one sequence for all of a sample's numbers, or,
// with leading dimensions, one for each row.
at::Tensor searchsorted_rule(Level& level, const at::Tensor& sorted_sequence,
                             const at::Tensor& self, bool out_int32, bool right,
                             std::optional<c10::string_view> side,
                             const std::optional<at::Tensor>& sorter) {
  const bool has_sorter = sorter && sorter->defined();
  const bool sequences_differ =
      is_batched_at(sorted_sequence, level) || (has_sorter && is_batched_at(*sorter, level));
  if (sorted_sequence.dim() == 1 && !sequences_differ) {
    const auto order = has_sorter ? std::optional(value_of(*sorter, level)) : std::nullopt;
    const auto found = at::searchsorted(value_of(sorted_sequence, level), value_of(self, level),
                                        out_int32, right, side, order);
    return wrap(found, bdim_of(self, level), level);
  }
  const auto sequence = expanded_at_front(sorted_sequence, level).contiguous();
  const auto order =
      has_sorter ? std::optional(expanded_at_front(*sorter, level).contiguous()) : std::nullopt;
  auto values = expanded_at_front(self, level);
  if (sorted_sequence.dim() == 1) {
    values = self.dim() == 0 ? values.unsqueeze(1) : values.flatten(1);
  }
  const auto found = at::searchsorted(sequence, values.contiguous(), out_int32, right, side, order);
  return wrap(found.reshape_symint(physical_sizes(self.sym_sizes(), level)), 0, level);
}

at::Tensor searchsorted_number_rule(Level& level, const at::Tensor& sorted_sequence,
                                    const at::Scalar& self, bool out_int32, bool right,
                                    std::optional<c10::string_view> side,
                                    const std::optional<at::Tensor>& sorter) {
  const auto dtype = at::result_type(sorted_sequence, self);
  const auto number =
      at::scalar_tensor(self, value_of(sorted_sequence, level).options().dtype(dtype));
  return searchsorted_rule(level, sorted_sequence.to(dtype), number, out_int32, right, side,
                           sorter);
}

at::Tensor bucketize_rule(Level& level, const at::Tensor& self, const at::Tensor& boundaries,
                          bool out_int32, bool right) {
  return searchsorted_rule(level, boundaries, self, out_int32, right, std::nullopt, std::nullopt);
}

at::Tensor bucketize_number_rule(Level& level, const at::Scalar& self, const at::Tensor& boundaries,
                                 bool out_int32, bool right) {
  return searchsorted_number_rule(level, boundaries, self, out_int32, right, std::nullopt,
                                  std::nullopt);
}

// Membership: compared with every member, which are behind the elements.
at::Tensor isin_rule(Level& level, const at::Tensor& elements, const at::Tensor& test_elements,
                     bool assume_unique, bool invert) {
  auto members = at_front(test_elements, level);
  members = is_batched_at(test_elements, level)
                ? (test_elements.dim() == 0 ? members.unsqueeze(1) : members.flatten(1))
                : members.flatten();
  if (is_batched_at(test_elements, level)) {
    for (int64_t dim = 0; dim < elements.dim(); ++dim) {
      members = members.unsqueeze(1);
    }
  }
  const auto found = at_front(elements, level).unsqueeze(-1).eq(members).any(-1);
  return wrap(invert ? found.logical_not() : found, 0, level);
}

at::Tensor isin_number_rule(Level& level, const at::Scalar& element,
                            const at::Tensor& test_elements, bool, bool invert) {
  const auto equal = at_front(test_elements, level).eq(element);
  const auto found = (test_elements.dim() == 0 ? equal.unsqueeze(1) : equal.flatten(1)).any(1);
  return wrap(invert ? found.logical_not() : found, 0, level);
}

}  // namespace

void register_sorting_rules() {
  add<at::_ops::sort, AlongDims>({"dim"});
  add<at::_ops::sort_stable, AlongDims>({"dim"});
  add<at::_ops::topk, AlongDims>({"dim"});
  add<at::_ops::kthvalue, AlongDims>({"dim"});
  add<at::_ops::mode, AlongDims>({"dim"});

  add<at::_ops::searchsorted_Tensor>(searchsorted_rule);
  add<at::_ops::searchsorted_Scalar>(searchsorted_number_rule);
  add<at::_ops::bucketize_Tensor>(bucketize_rule);
  add<at::_ops::bucketize_Scalar>(bucketize_number_rule);
  add<at::_ops::isin_Tensor_Tensor>(isin_rule);
  add<at::_ops::isin_Tensor_Scalar, Pointwise>();
  add<at::_ops::isin_Scalar_Tensor>(isin_number_rule);
}

}  // namespace functorch_ext
