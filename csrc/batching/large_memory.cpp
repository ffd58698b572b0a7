#include "batching/large_memory.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/core/impl/alloc_cpu.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>

namespace functorch_ext {

#if defined(MADV_HUGEPAGE) && defined(MADV_FREE)

namespace {

constexpr size_t page = size_t{1} << 21;
constexpr size_t most_kept = size_t{512} << 20;

struct Block {
  void* memory;
  size_t bytes;  // whole pages
};

// Blocks that were freed, for the next tensors of their sizes: those of a training step are those
// of the last one. The system may take their pages whenever it is short of memory, but until then
// they needn't be handed out and cleared again.
class FreedBlocks {
 public:
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
      if (block->bytes == bytes) {
        auto* memory = block->memory;
        bytes_ -= bytes;
        blocks_.erase(std::next(block).base());
        return memory;
      }
    }
    return nullptr;
  }
  void put(Block block) {
    if (block.bytes > most_kept || madvise(block.memory, block.bytes, MADV_FREE) != 0) {
      std::free(block.memory);
      return;
    }
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
    bytes_ += block.bytes;
    while (bytes_ > most_kept) {
      bytes_ -= blocks_.front().bytes;
      std::free(blocks_.front().memory);
      blocks_.pop_front();
    }
  }

 private:
  std::mutex mutex_;
  std::deque<Block> blocks_;
  size_t bytes_ = 0;
};

// For as long as the process lives: the last tensors are freed after what is static.
FreedBlocks& freed_blocks() {
  static auto& blocks = *new FreedBlocks;
  return blocks;
}

class LargePages final : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    const auto whole = (bytes + page - 1) / page * page;
    auto* memory = freed_blocks().take(whole);
    if (!memory) {
      memory = std::aligned_alloc(page, whole);
      if (!memory) {
        return c10::GetCPUAllocator()->allocate(bytes);  // whose error says what there is to say
      }
      // Advice: where the system doesn't take it, nothing is different.
      madvise(memory, whole, MADV_HUGEPAGE);
    }
    c10::profiledCPUMemoryReporter().New(memory, bytes);
    return {memory, new Block{memory, whole}, &free_block, at::kCPU};
  }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void free_block(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
    c10::profiledCPUMemoryReporter().Delete(block->memory);
    freed_blocks().put(*block);
  }
};

}  // namespace

at::Tensor empty_in_large_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const auto bytes = c10::multiply_integers(sizes) * options.dtype().itemsize();
  // A dispatch mode is to see how the tensor is made.
  if (bytes < 2 * page || !options.device().is_cpu() || c10::impl::dispatch_mode_enabled()) {
    return at::empty(sizes, options);
  }
  static auto& large_pages = *new LargePages;
  return at::detail::empty_generic(sizes, &large_pages, c10::DispatchKeySet(c10::DispatchKey::CPU),
                                   c10::typeMetaToScalarType(options.dtype()), std::nullopt);
}

#else

at::Tensor empty_in_large_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  return at::empty(sizes, options);
}

#endif

void reuse_freed_memory() {
  // What malloc keeps follows the largest block that the program has given back, up to this size.
  constexpr size_t largest = (size_t{32} << 20) - (size_t{64} << 10);
  c10::free_cpu(c10::alloc_cpu(largest));
}

}  // namespace functorch_ext
