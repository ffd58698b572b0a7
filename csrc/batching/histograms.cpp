// Counting: histogram, histc, bincount.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"
#include "batching/values.h"

namespace functorch_ext {

namespace {

using Range = std::optional<at::ArrayRef<double>>;
using Weight = std::optional<at::Tensor>;

// The edges of bins along one dimension: of all samples, or in front of each sample's own.
struct Edges {
  at::Tensor values;
  bool batched;
  bool evenly_spaced = false;

  at::Tensor wrapped(const Level& level) const {
    return wrap(values, batched ? 0 : no_bdim, level);
  }
};

// The points of every sample as (samples, points, dimensions).
at::Tensor points_of(const at::Tensor& self, const Level& level) {
  const auto value = expanded_at_front(self, level);
  return value.dim() == 3 ? value : value.flatten(1, -2);
}

// The numbers of every sample as points on a line.
at::Tensor points_on_a_line(const at::Tensor& self, const Level& level) {
  const auto value = expanded_at_front(self, level);
  return self.dim() == 0 ? value.reshape_symint({level.batch_size, 1, 1})
                         : value.flatten(1).unsqueeze(2);
}

std::vector<Edges> equal_bins(const at::Tensor& points, at::IntArrayRef bins, const Range& range) {
  std::vector<Edges> edges;
  for (size_t d = 0; d < bins.size(); ++d) {
    if (range || points.sym_size(1) == 0) {
      double first = range ? range->at(2 * d) : 0;
      double last = range ? range->at(2 * d + 1) : 1;
      if (first == last) {
        first -= 0.5;
        last += 0.5;
      }
      edges.push_back({at::linspace(first, last, bins[d] + 1, points.options()), false, true});
      continue;
    }
    const auto [smallest, largest] = at::aminmax(points.select(2, static_cast<int64_t>(d)), 1);
    const auto widening = smallest.eq(largest).to(points.scalar_type()) * 0.5;
    edges.push_back(
        {evenly_spaced(smallest - widening, largest + widening, bins[d] + 1), true, true});
  }
  return edges;
}

Edges given_bins(const at::Tensor& bins, const Level& level) {
  return {at_front(bins, level), is_batched_at(bins, level)};
}

// The bin that each number is in. Where all are as wide, a division finds it, but for rounding.
at::Tensor bin_of(const at::Tensor& numbers, const Edges& edges, const at::Tensor& values) {
  const auto bins = values.sym_size(-1) - 1;
  const auto clamped = [&](at::Tensor bin) {
    return bin.clamp_(at::Scalar(0), at::Scalar(bins - 1));
  };
  if (!edges.evenly_spaced) {
    return clamped(at::searchsorted(values, numbers, false, /*right=*/true).sub_(1));
  }
  const auto first = values.narrow_symint(-1, 0, 1);
  const auto width = (values.narrow_symint(-1, bins, 1) - first) / bins;
  const auto guess = clamped(((numbers - first) / width).to(at::kLong));
  const auto edge = [&](const at::Tensor& number) {
    return edges.batched ? values.gather(1, number) : values.take(number);
  };
  return clamped((guess + numbers.ge(edge(guess + 1))).sub_(numbers.lt(edge(guess)).to(at::kLong)));
}

// A bin holds its left edge, and the last one its right edge too.
at::Tensor histogram(const at::Tensor& points, const std::vector<Edges>& edges,
                     const Weight& weight, bool density, const Level& level) {
  std::vector<c10::SymInt> shape = {level.batch_size};
  c10::SymInt count = 1;
  at::Tensor place;
  at::Tensor inside;
  for (size_t d = 0; d < edges.size(); ++d) {
    const auto along = points.select(2, static_cast<int64_t>(d)).contiguous();
    const auto values = edges[d].values.contiguous();
    const auto bins = values.sym_size(-1) - 1;
    const auto within = along.ge(values.narrow_symint(-1, 0, 1))
                            .logical_and(along.le(values.narrow_symint(-1, bins, 1)));
    const auto bin = bin_of(along, edges[d], values);
    place = place.defined() ? place * bins + bin : bin;
    inside = inside.defined() ? inside.logical_and(within) : within;
    shape.push_back(bins);
    count *= bins;
  }
  const auto weights = weight && weight->defined()
                           ? expanded_at_front(*weight, level).reshape_symint(inside.sym_sizes()) *
                                 inside.to(points.scalar_type())
                           : inside.to(points.scalar_type());
  auto counts = points.new_zeros_symint({level.batch_size, count}).scatter_add(1, place, weights);
  if (density) {
    counts = counts / counts.sum(1, true);
  }
  counts = counts.reshape_symint(shape);
  for (size_t d = 0; density && d < edges.size(); ++d) {
    auto widths = edges[d].values.diff();
    for (auto behind = edges.size() - d - 1; behind > 0; --behind) {
      widths = widths.unsqueeze(-1);
    }
    for (size_t before = 0; edges[d].batched && before < d; ++before) {
      widths = widths.unsqueeze(1);
    }
    counts = counts / widths;
  }
  return wrap(counts, 0, level);
}

std::tuple<at::Tensor, at::Tensor> histogram_rule(Level& level, const at::Tensor& self,
                                                  int64_t bins, Range range, const Weight& weight,
                                                  bool density) {
  const auto points = points_on_a_line(self, level);
  const auto edges = equal_bins(points, bins, range);
  return {histogram(points, edges, weight, density, level), edges[0].wrapped(level)};
}

std::tuple<at::Tensor, at::Tensor> histogram_of_bins_rule(Level& level, const at::Tensor& self,
                                                          const at::Tensor& bins,
                                                          const Weight& weight, bool density) {
  const auto edges = given_bins(bins, level);
  return {histogram(points_on_a_line(self, level), {edges}, weight, density, level),
          wrap(edges.values.clone(), edges.batched ? 0 : no_bdim, level)};
}

std::vector<at::Tensor> histogramdd_edges_rule(Level& level, const at::Tensor& self,
                                               at::IntArrayRef bins, Range range, const Weight&,
                                               bool) {
  std::vector<at::Tensor> wrapped;
  for (const auto& edges : equal_bins(points_of(self, level), bins, range)) {
    wrapped.push_back(edges.wrapped(level));
  }
  return wrapped;
}

at::Tensor histogramdd_rule(Level& level, const at::Tensor& self, at::IntArrayRef bins, Range range,
                            const Weight& weight, bool density) {
  const auto points = points_of(self, level);
  return histogram(points, equal_bins(points, bins, range), weight, density, level);
}

at::Tensor histogramdd_of_bins_rule(Level& level, const at::Tensor& self, at::TensorList bins,
                                    const Weight& weight, bool density) {
  std::vector<Edges> edges;
  for (const auto& each : bins) {
    edges.push_back(given_bins(each, level));
  }
  return histogram(points_of(self, level), edges, weight, density, level);
}

// How many numbers fall into each of equal bins between min and max; without these, between the
// smallest and the largest number of the sample.
at::Tensor histc_rule(Level& level, const at::Tensor& self, int64_t bins, const at::Scalar& min,
                      const at::Scalar& max) {
  TORCH_CHECK(bins > 0, "histc: bins must be positive, got ", bins);
  TORCH_CHECK(max.toDouble() >= min.toDouble(), "histc: max must be larger than min");
  TORCH_CHECK_NOT_IMPLEMENTED(at::isFloatingType(self.scalar_type()),
                              "histc is not implemented for ", self.scalar_type());
  const auto value = at_front(self, level);
  const auto row = self.dim() == 0 ? value.unsqueeze(1) : value.flatten(1);
  const auto counts = row.new_zeros_symint({level.batch_size, bins});
  if (row.sym_size(1) == 0) {
    return wrap(counts, 0, level);
  }
  const bool given = min.toDouble() != max.toDouble();
  auto low = given ? at::full({}, min, row.options()) : row.amin(1, true);
  auto high = given ? at::full({}, max, row.options()) : row.amax(1, true);
  if (!given) {
    const auto empty = low.eq(high);
    low = low - empty.to(low.scalar_type());
    high = high + empty.to(high.scalar_type());
  }
  const auto inside = row.ge(low).logical_and(row.le(high));
  const auto bin = ((row - low) * bins / (high - low)).to(at::kLong).clamp(0, bins - 1);
  return wrap(counts.scatter_add(1, bin, inside.to(row.scalar_type())), 0, level);
}

// The number of counts depends on the largest number: all samples must come to the same.
at::Tensor bincount_rule(Level& level, const at::Tensor& self, const Weight& weights,
                         c10::SymInt minlength) {
  TORCH_CHECK(self.dim() == 1 && holds_for_all(self.ge(0)),
              "bincount only supports 1-d non-negative integral inputs.");
  TORCH_CHECK_NOT_IMPLEMENTED(self.scalar_type() != at::kBool,
                              "bincount is not implemented for Bool");
  auto bins = minlength;
  if (self.sym_numel() > 0) {
    const auto needed = agreed_value((self.amax() + 1).clamp_min(minlength));
    TORCH_CHECK(needed || level.batch_size == 0,
                "functorch_ext.vmap: the shape of the result of aten::bincount depends on the "
                "data and differs between samples. Give minlength: more than the largest number "
                "of any sample.");
    bins = needed ? c10::SymInt(needed->item<int64_t>()) : minlength;
  }
  const bool weighted = weights && weights->defined();
  const auto dtype = !weighted                              ? at::kLong
                     : weights->scalar_type() == at::kFloat ? at::kFloat
                                                            : at::kDouble;
  const auto counts = value_of(self, level).new_zeros_symint({level.batch_size, bins}, dtype);
  const auto places = expanded_at_front(self, level).to(at::kLong);
  const auto added =
      weighted ? expanded_at_front(*weights, level).to(dtype) : at::ones_like(places);
  return wrap(counts.scatter_add(1, places, added), 0, level);
}

}  // namespace

void register_histograms_rules() {
  add<at::_ops::histogram_bin_ct>(histogram_rule);
  add<at::_ops::histogram_bins_tensor>(histogram_of_bins_rule);
  add<at::_ops::_histogramdd_bin_edges>(histogramdd_edges_rule);
  add<at::_ops::_histogramdd_from_bin_cts>(histogramdd_rule);
  add<at::_ops::_histogramdd_from_bin_tensors>(histogramdd_of_bins_rule);
  add<at::_ops::histc>(histc_rule);
  add<at::_ops::bincount>(bincount_rule);
}

}  // namespace functorch_ext
