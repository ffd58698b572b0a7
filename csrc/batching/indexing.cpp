// Advanced indexing: tensors of indices, one for each of some dimensions.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/single_masks.h"
#include "batching/values.h"

namespace functorch_ext {

namespace {

// The indices of one sample, and how the result is laid out: where all indexed dimensions are
// neighbours, the dimensions of the indices take their place, else they come first.
struct Indices {
  Indices(const OptionalTensors& given, const Level& level) {
    int64_t dim = 0;
    for (size_t i = 0; i < given.size(); ++i) {
      const std::optional<at::Tensor> index = given.get(i);
      if (!index || !index->defined()) {
        tensors.emplace_back();
        ++dim;
        continue;
      }
      batched = batched || is_batched_at(*index, level);
      masks = masks || is_mask(*index);
      const auto covered = is_mask(*index) ? index->dim() : 1;
      first = indexed == 0 ? dim : first;
      adjacent = adjacent && (indexed == 0 || dim == first + indexed);
      rank = std::max(rank, is_mask(*index) ? 1 : index->dim());
      indexed += covered;
      dim += covered;
      tensors.push_back(*index);
    }
  }

  // The number of dimensions of what is indexed.
  int64_t region_rank(const at::Tensor& self) const {
    return self.dim() - indexed + rank;
  }

  // Every mask as the positions where it is true, so that each index is for one dimension.
  void replace_masks(const Level& level) {
    std::vector<at::Tensor> positions;
    for (const auto& index : tensors) {
      if (!index.defined() || !is_mask(index)) {
        positions.push_back(index);
        continue;
      }
      for (auto& each : positions_in(index, level)) {
        positions.push_back(std::move(each));
      }
    }
    tensors = std::move(positions);
    masks = false;
  }

  // Where a mask is true, as one tensor for each of its dimensions. Where it differs between
  // samples they have to agree on the number of places.
  static std::vector<at::Tensor> positions_in(const at::Tensor& mask, const Level& level) {
    if (!is_batched_at(mask, level)) {
      return value_of(mask, level).nonzero().unbind(1);
    }
    const auto places = agreed_count(mask);
    TORCH_CHECK(
        places,
        "functorch_ext.vmap: aten::index: indexing with a boolean mask that differs between "
        "samples, whose result has a shape that depends on the data. Use torch.where(mask, x, "
        "fill) or masked_fill instead, or a mask that all samples share.");
    return at::nonzero_static(mask, *places).unbind(1);
  }

  // For the value of `self` with the samples in front, none of which is indexed.
  OptionalTensors behind_samples(const Level& level) const {
    OptionalTensors physical;
    physical.push_back(std::nullopt);
    for (const auto& index : tensors) {
      physical.push_back(optional(index.defined() ? value_of(index, level) : index));
    }
    return physical;
  }

  // Lined up with each other, for a value without samples.
  OptionalTensors lined_up(const Level& level) const {
    OptionalTensors physical;
    for (const auto& index : tensors) {
      physical.push_back(optional(index.defined() ? aligned(index, rank, level) : index));
    }
    return physical;
  }

  // Lined up, with one more that takes sample i of `self` to sample i of the indices. The result is
  // laid out as (samples, indices, rest).
  OptionalTensors by_sample(const at::Tensor& self, const Level& level) const {
    const auto options = value_of(self, level).options().dtype(at::kLong);
    auto samples = at::arange(level.batch_size, options);
    for (int64_t dim = 0; dim < rank; ++dim) {
      samples = samples.unsqueeze(-1);
    }
    OptionalTensors physical;
    physical.push_back(std::move(samples));
    for (auto&& index : lined_up(level)) {
      physical.push_back(std::optional<at::Tensor>(index));
    }
    return physical;
  }

  // From the layout (indices, rest) to where the dimensions of the indices belong; `offset` is the
  // number of dimensions in front of both. And back.
  at::Tensor into_place(const at::Tensor& value, int64_t offset) const {
    return is_in_front() ? value : value.movedim(range(offset), range(offset + first));
  }
  at::Tensor to_front(const at::Tensor& value, int64_t offset) const {
    return is_in_front() ? value : value.movedim(range(offset + first), range(offset));
  }

  std::vector<at::Tensor> tensors = {};  // undefined: the whole dimension
  int64_t first = 0;                     // the first dimension that is indexed
  int64_t indexed = 0;                   // how many are
  int64_t rank = 0;                      // of the indices, broadcast
  bool adjacent = true;
  bool batched = false;
  bool masks = false;

 private:
  static std::optional<at::Tensor> optional(const at::Tensor& index) {
    return index.defined() ? std::optional(index) : std::nullopt;
  }
  bool is_in_front() const {
    return !adjacent || first == 0;
  }
  std::vector<int64_t> range(int64_t start) const {
    std::vector<int64_t> dims;
    for (int64_t dim = 0; dim < rank; ++dim) {
      dims.push_back(start + dim);
    }
    return dims;
  }
};

template <class Op>
at::Tensor index_rule(Level& level, const at::Tensor& self, const OptionalTensors& given) {
  Indices indices(given, level);
  if (!indices.batched && indices.adjacent) {
    return wrap(Op::call(at_front(self, level), indices.behind_samples(level)), 0, level);
  }
  if (indices.masks) {
    indices.replace_masks(level);
  }
  if (!is_batched_at(self, level)) {
    const auto bdim = indices.adjacent ? indices.first : 0;
    return wrap(Op::call(value_of(self, level), indices.lined_up(level)), bdim, level);
  }
  const auto result = Op::call(at_front(self, level), indices.by_sample(self, level));
  return wrap(indices.into_place(result, 1), 0, level);
}

// What index_put writes, for indices by sample.
at::Tensor values_by_sample(const Indices& indices, const at::Tensor& values, int64_t region_rank,
                            const Level& level) {
  auto value = aligned(values, region_rank, level);
  const int64_t samples = is_batched_at(values, level) ? 1 : 0;
  while (value.dim() < region_rank + samples) {
    value = value.unsqueeze(0);
  }
  return indices.to_front(value, samples);
}

// An assignment under a mask that differs between samples, if what is written doesn't depend on how
// many places there are.
struct UnderMask {
  at::Tensor where;  // of the rank of what is written to
  at::Tensor values;

  static std::optional<UnderMask> of(const Indices& indices, const at::Tensor& self,
                                     const at::Tensor& values) {
    if (!indices.batched || !indices.masks) {
      return std::nullopt;
    }
    const auto behind = self.dim() - indices.first - indices.indexed;
    const bool single = values.sym_numel() == 1;
    at::Tensor mask;
    for (const auto& index : indices.tensors) {
      if (index.defined()) {
        if (mask.defined() || !is_mask(index)) {
          return std::nullopt;
        }
        mask = index.to(at::kBool);
      }
    }
    if (values.dim() > behind && !single) {
      return std::nullopt;
    }
    for (int64_t dim = 0; dim < behind; ++dim) {
      mask = mask.unsqueeze(-1);
    }
    return UnderMask{
        mask, (single && values.dim() > 0 ? values.reshape({}) : values).to(self.scalar_type())};
  }

  at::Tensor put(const at::Tensor& self, bool accumulate) const {
    return at::where(where, accumulate ? self + values : values, self);
  }
  void put_in_place(at::Tensor& self, bool accumulate) const {
    if (values.dim() == 0 && !accumulate) {
      self.masked_fill_(where, values);
    } else {
      self.copy_(put(self, accumulate));
    }
  }
};

// The derivative of an assignment under a mask reads by that mask; that of a where doesn't.
template <class... Unsafe>
std::optional<at::Tensor> index_put_decomposition(Level& level, const at::Tensor& self,
                                                  const OptionalTensors& indices,
                                                  const at::Tensor& values, bool accumulate,
                                                  Unsafe...) {
  const auto under_mask = UnderMask::of(Indices(indices, level), self, values);
  return under_mask ? std::optional(under_mask->put(self, accumulate)) : std::nullopt;
}

template <class... Unsafe>
std::optional<at::Tensor> index_put_in_place_decomposition(Level& level, at::Tensor& self,
                                                           const OptionalTensors& indices,
                                                           const at::Tensor& values,
                                                           bool accumulate, Unsafe...) {
  const auto under_mask = UnderMask::of(Indices(indices, level), self, values);
  if (!under_mask) {
    return std::nullopt;
  }
  under_mask->put_in_place(self, accumulate);
  return self;
}

// `put(indices, values)` writes into the physical value, or into a copy of it.
template <class Put>
at::Tensor index_put(Indices indices, const at::Tensor& self, const at::Tensor& values,
                     const Level& level, const Put& put) {
  const auto region_rank = indices.region_rank(self);
  if (!indices.batched && indices.adjacent) {
    return put(indices.behind_samples(level), aligned(values, region_rank, level));
  }
  if (indices.masks) {
    indices.replace_masks(level);
  }
  return put(indices.by_sample(self, level), values_by_sample(indices, values, region_rank, level));
}

template <class Op, class... Unsafe>
at::Tensor index_put_rule(Level& level, const at::Tensor& self, const OptionalTensors& given,
                          const at::Tensor& values, bool accumulate, Unsafe... unsafe) {
  const Indices indices(given, level);
  if (const auto under_mask = UnderMask::of(indices, self, values)) {
    return under_mask->put(self, accumulate);
  }
  const auto put = [&](const OptionalTensors& physical, const at::Tensor& written) {
    return Op::call(expanded_to_change(self, level), physical, written, accumulate, unsafe...);
  };
  return wrap(index_put(indices, self, values, level, put), 0, level);
}

template <class Op, class... Unsafe>
at::Tensor& index_put_in_place_rule(Level& level, at::Tensor& self, const OptionalTensors& given,
                                    const at::Tensor& values, bool accumulate, Unsafe... unsafe) {
  const Indices indices(given, level);
  if (const auto under_mask = UnderMask::of(indices, self, values)) {
    under_mask->put_in_place(self, accumulate);
    return self;
  }
  auto written_to = at_front(self, level);
  const auto put = [&](const OptionalTensors& physical, const at::Tensor& written) {
    return Op::call(written_to, physical, written, accumulate, unsafe...);
  };
  index_put(indices, self, values, level, put);
  return self;
}

// A sample's numbers in one dimension, as take and put count them.
at::Tensor flat(const at::Tensor& tensor, const Level& level) {
  const auto value = at_front(tensor, level);
  if (!is_batched_at(tensor, level)) {
    return value.flatten();
  }
  return tensor.dim() == 0 ? value.unsqueeze(1) : value.flatten(1);
}

at::Tensor take_rule(Level& level, const at::Tensor& self, const at::Tensor& index) {
  const auto row = wrap(flat(self, level), is_batched_at(self, level) ? 0 : no_bdim, level);
  return index_rule<at::_ops::index_Tensor>(level, row, OptionalTensors({std::optional(index)}));
}

at::Tensor put_rule(Level& level, const at::Tensor& self, const at::Tensor& index,
                    const at::Tensor& source, bool accumulate) {
  const auto as_row = [&](const at::Tensor& tensor) {
    return wrap(flat(tensor, level), is_batched_at(tensor, level) ? 0 : no_bdim, level);
  };
  const auto result = index_put_rule<at::_ops::index_put>(
      level, as_row(self), OptionalTensors({std::optional(as_row(index))}), as_row(source),
      accumulate);
  return wrap(value_of(result, level).reshape_symint(physical_sizes(self.sym_sizes(), level)), 0,
              level);
}

at::Tensor& put_in_place_rule(Level& level, at::Tensor& self, const at::Tensor& index,
                              const at::Tensor& source, bool accumulate) {
  at_front(self, level).copy_(value_of(put_rule(level, self, index, source, accumulate), level));
  return self;
}

// The indices may be out of range: they are meant to be where the mask is false, which hides what
// is read or written there. As in PyTorch, those in range are the ones to use elsewhere.
OptionalTensors in_range(const OptionalTensors& given, const at::Tensor& self) {
  OptionalTensors indices;
  for (size_t i = 0; i < given.size(); ++i) {
    const std::optional<at::Tensor> index = given.get(i);
    const bool is_given = index && index->defined();
    const auto size = self.size(i);
    indices.push_back(is_given ? std::optional(at::clamp(*index, -size, size - 1)) : std::nullopt);
  }
  return indices;
}

at::Tensor masked_index_rule(Level&, const at::Tensor& self, const at::Tensor& mask,
                             const OptionalTensors& indices, const at::Scalar& fill) {
  if (self.sym_numel() == 0) {
    return at::_unsafe_index(self, indices).masked_fill(mask.logical_not(), fill);
  }
  const auto found = at::_unsafe_index(self, in_range(indices, self));
  return found.masked_fill(mask.logical_not(), fill);
}

at::Tensor masked_index_put_accumulate_rule(Level&, const at::Tensor& self, const at::Tensor& mask,
                                            const OptionalTensors& indices,
                                            const at::Tensor& values) {
  if (self.sym_numel() == 0) {
    return self.clone();
  }
  return at::_unsafe_index_put(self, in_range(indices, self),
                               values.masked_fill(mask.logical_not(), 0), /*accumulate=*/true);
}

}  // namespace

void register_indexing_rules() {
  add<at::_ops::index_Tensor, Indexing>(index_rule<at::_ops::index_Tensor>);
  add<at::_ops::_unsafe_index_Tensor>(index_rule<at::_ops::_unsafe_index_Tensor>);
  add<at::_ops::index_put>(index_put_rule<at::_ops::index_put>, index_put_decomposition<>);
  add<at::_ops::_unsafe_index_put>(index_put_rule<at::_ops::_unsafe_index_put>);
  add<at::_ops::_index_put_impl>(index_put_rule<at::_ops::_index_put_impl, bool>,
                                 index_put_decomposition<bool>);
  add<at::_ops::index_put_, Indexing>(index_put_in_place_rule<at::_ops::index_put_>,
                                      index_put_in_place_decomposition<>);
  add<at::_ops::_index_put_impl_>(index_put_in_place_rule<at::_ops::_index_put_impl_, bool>,
                                  index_put_in_place_decomposition<bool>);
  add<at::_ops::_unsafe_masked_index>(masked_index_rule);
  add<at::_ops::_unsafe_masked_index_put_accumulate>(masked_index_put_accumulate_rule);
  add<at::_ops::take>(take_rule);
  add<at::_ops::put>(put_rule);
  add<at::_ops::put_>(put_in_place_rule);
}

}  // namespace functorch_ext
