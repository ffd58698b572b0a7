#include "batching/stacked_products.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstring>

#include "engine/threads.h"

namespace functorch_ext {

namespace {

// Of these factors in common, arithmetic takes so long that the memory of products doesn't matter.
constexpr int64_t most_factors = 128;
// Products of fewer bytes in all are in the core's cache anyway.
constexpr int64_t fewest_bytes = int64_t{1} << 20;
// Bytes of products that stay in the core's cache, next to their factors.
constexpr int64_t bytes_in_cache = int64_t{1} << 19;

// A product of stacks in parts that fit into a core's cache: of some samples each, or of some rows
// of one sample.
struct Parts {
  int64_t count;
  int64_t samples;         // in a part; the last one may have fewer
  int64_t of_each_sample;  // more than one where a sample's product is too large
  int64_t rows;            // in a part of a sample
};

Parts parts_of(const at::Tensor& product, int64_t threads) {
  const auto samples = product.size(0), rows = product.size(1);
  const auto bytes = static_cast<int64_t>(product.nbytes()), bytes_of_sample = bytes / samples;
  if (bytes_of_sample <= 2 * bytes_in_cache) {
    // For more threads than one some parts each, of which none is long at work alone in the end.
    const auto most = threads == 1 ? samples : std::max<int64_t>(samples / (4 * threads), 1);
    const auto in_part = std::clamp<int64_t>(bytes_in_cache / bytes_of_sample, 1, most);
    return {(samples + in_part - 1) / in_part, in_part, 1, rows};
  }
  const auto parts = (bytes_of_sample + bytes_in_cache - 1) / bytes_in_cache;
  const auto rows_of_part = (rows + parts - 1) / parts;
  const auto of_each = (rows + rows_of_part - 1) / rows_of_part;
  return {samples * of_each, 1, of_each, rows_of_part};
}

// The products of some samples. What is written with zeros first comes into the cache line after
// line, faster than a kernel for products would fetch it tile by tile.
void multiply_samples(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right,
                      int64_t start, int64_t count) {
  auto part = product.narrow(0, start, std::min(count, product.size(0) - start));
  std::memset(part.mutable_data_ptr(), 0, part.nbytes());
  at::bmm_out(part, left.narrow(0, start, part.size(0)), right.narrow(0, start, part.size(0)));
}

// Some rows of a large product, so that they are written from end to end.
void multiply_rows(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right,
                   int64_t start, int64_t count) {
  auto part = product.narrow(0, start, std::min(count, product.size(0) - start));
  at::mm_out(part, left.narrow(0, start, part.size(0)), right);
}

}  // namespace

void multiply_stacks(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right) {
  const auto threads = threads_for_work();
  const auto parts = parts_of(product, threads);
  if (static_cast<int64_t>(product.nbytes()) < fewest_bytes || left.size(2) > most_factors ||
      !keeps_threads_busy(parts.count)) {
    auto result = product;
    at::bmm_out(result, left, right);
    return;
  }
  on_all_threads(parts.count, 1, [&](int64_t start, int64_t end) {
    for (auto part = start; part < end; ++part) {
      if (parts.of_each_sample == 1) {
        multiply_samples(product, left, right, part * parts.samples, parts.samples);
        continue;
      }
      const auto sample = part / parts.of_each_sample;
      multiply_rows(product.select(0, sample), left.select(0, sample), right.select(0, sample),
                    part % parts.of_each_sample * parts.rows, parts.rows);
    }
  });
}

}  // namespace functorch_ext
