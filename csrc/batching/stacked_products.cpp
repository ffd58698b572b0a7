#include "batching/stacked_products.h"

#include <ATen/Parallel.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstring>

namespace functorch_ext {

namespace {

// Of these factors in common, arithmetic takes so long that the memory of products doesn't matter.
constexpr int64_t most_factors = 128;
// Products of fewer bytes in all are in the core's cache anyway.
constexpr int64_t fewest_bytes = int64_t{1} << 20;
// Bytes of products that stay in the core's cache, next to their factors.
constexpr int64_t bytes_in_cache = int64_t{1} << 19;

// The products of some samples at a time. What is written with zeros first comes into the cache
// line after line, faster than a kernel for products would fetch it tile by tile.
void multiply_samples(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right,
                      int64_t step) {
  for (int64_t start = 0; start < product.size(0); start += step) {
    const auto count = std::min(step, product.size(0) - start);
    auto part = product.narrow(0, start, count);
    std::memset(part.mutable_data_ptr(), 0, part.nbytes());
    at::bmm_out(part, left.narrow(0, start, count), right.narrow(0, start, count));
  }
}

// Some rows of a large product at a time, so that they are written from end to end.
void multiply_rows(at::Tensor product, const at::Tensor& left, const at::Tensor& right,
                   int64_t step) {
  for (int64_t start = 0; start < product.size(0); start += step) {
    auto part = product.narrow(0, start, std::min(step, product.size(0) - start));
    at::mm_out(part, left.narrow(0, start, part.size(0)), right);
  }
}

}  // namespace

void multiply_stacks(const at::Tensor& product, const at::Tensor& left, const at::Tensor& right) {
  const auto bytes = static_cast<int64_t>(product.nbytes());
  // Several threads share the work out among them, and each has a cache of its own.
  const bool one_thread = at::get_num_threads() == 1 || at::in_parallel_region();
  if (!one_thread || bytes < fewest_bytes || left.size(2) > most_factors) {
    auto result = product;
    at::bmm_out(result, left, right);
    return;
  }
  const auto bytes_of_sample = bytes / product.size(0);
  if (bytes_of_sample <= 2 * bytes_in_cache) {
    multiply_samples(product, left, right, std::max(bytes_in_cache / bytes_of_sample, int64_t{1}));
    return;
  }
  const auto parts = (bytes_of_sample + bytes_in_cache - 1) / bytes_in_cache;
  const auto rows = (product.size(1) + parts - 1) / parts;
  for (int64_t sample = 0; sample < product.size(0); ++sample) {
    multiply_rows(product.select(0, sample), left.select(0, sample), right.select(0, sample), rows);
  }
}

}  // namespace functorch_ext
