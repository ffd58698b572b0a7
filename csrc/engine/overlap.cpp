#include "engine/overlap.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/clone.h>

#include <numeric>
#include <unordered_map>

#include "engine/extent.h"
#include "engine/sample_check.h"

namespace functorch_ext {

namespace {

// Copies of plain tensors, which share memory as the tensors do. Memory between the elements of a
// sample, which other samples have, is left out.
class CopiesInOneMemory {
 public:
  void add(const at::Tensor& tensor) {
    const auto first = tensor.storage_offset();
    auto& part = parts_.try_emplace(memory_of(tensor), Part{first, first}).first->second;
    part.step = std::gcd(part.step, first - part.first);
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
      if (tensor.size(dim) > 1) {
        part.step = std::gcd(part.step, tensor.stride(dim));
      }
    }
    const auto last =
        first +
        distance_to_last(tensor.sym_sizes(), tensor.sym_strides()).guard_int(__FILE__, __LINE__);
    part.first = std::min(part.first, first);
    part.last = std::max(part.last, last);
  }

  at::Tensor copy_of(const at::Tensor& tensor) {
    auto& part = parts_.at(memory_of(tensor));
    const auto step = std::max<int64_t>(part.step, 1);
    if (!part.copy.defined()) {
      part.copy = at::as_strided(tensor, {(part.last - part.first) / step + 1}, {step}, part.first)
                      .clone(at::MemoryFormat::Contiguous);
    }
    std::vector<int64_t> strides;
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
      strides.push_back(tensor.size(dim) > 1 ? tensor.stride(dim) / step : 1);
    }
    return part.copy.as_strided(tensor.sizes(), strides,
                                (tensor.storage_offset() - part.first) / step);
  }

 private:
  struct Part {
    int64_t first;  // element of the memory
    int64_t last;
    int64_t step = 0;  // that all elements are multiples of away from the first
    at::Tensor copy = {};
  };
  std::unordered_map<const c10::StorageImpl*, Part> parts_;
};

bool can_share(const at::Tensor& tensor) {
  return memory_of(tensor) && tensor.numel() > 0 && !tensor.is_conj() && !tensor.is_neg();
}

}  // namespace

bool reach_over_the_same(const at::Tensor& tensor, const at::Tensor& other) {
  if (tensor.sym_numel() == 0 || other.sym_numel() == 0 ||
      tensor.scalar_type() != other.scalar_type()) {
    return false;
  }
  const auto last = [](const at::Tensor& each) {
    return each.sym_storage_offset() + distance_to_last(each.sym_sizes(), each.sym_strides());
  };
  return tensor.sym_storage_offset() <= last(other) && other.sym_storage_offset() <= last(tensor);
}

void ask_about_overlap(const c10::OperatorHandle& op, const Level& level, Stack arguments) {
  run_on_sample(op, &level, std::move(arguments), /*index=*/0, [](Stack& samples) {
    CopiesInOneMemory copies;
    rewrite_stack(samples, samples.size(), [&](const at::Tensor& sample) {
      if (can_share(sample)) {
        copies.add(sample);
      }
      return sample;
    });
    rewrite_stack(samples, samples.size(), [&](const at::Tensor& sample) {
      return can_share(sample) ? copies.copy_of(sample)
                               : sample.clone(at::MemoryFormat::Contiguous);
    });
  });
}

}  // namespace functorch_ext
