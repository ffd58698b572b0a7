#pragma once

#include <torch/csrc/profiler/orchestration/observer.h>

#include <algorithm>
#include <atomic>
#include <chrono>

// What operators cost, without what observing them costs.
namespace functorch_ext {

// A clock that stands still while an observer works.
class UnobservedClock {
 public:
  static double now() {
    return running() - paused;
  }
  class Pause {
   public:
    Pause() : start_(running()) {}
    ~Pause() {
      paused += running() - start_;
    }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    const double start_;
  };

 private:
  static double running() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(time).count();
  }
  static inline thread_local double paused = 0;
};

// What PyTorch's allocators report, to a profiler that is off otherwise.
struct AllocatedMemory final : torch::profiler::impl::ProfilerStateBase {
  AllocatedMemory()
      : ProfilerStateBase(
            torch::profiler::impl::ProfilerConfig(torch::profiler::impl::ProfilerState::Disabled)) {
  }
  torch::profiler::impl::ActiveProfilerType profilerType() override {
    return torch::profiler::impl::ActiveProfilerType::NONE;
  }
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    const auto now = live += size;
    allocated += std::max<int64_t>(size, 0);
    auto before = peak.load();
    while (before < now && !peak.compare_exchange_weak(before, now)) {
    }
  }
  bool memoryProfilingEnabled() const override {
    return true;
  }

  std::atomic<int64_t> live{0};
  std::atomic<int64_t> peak{0};
  std::atomic<int64_t> allocated{0};
};

}  // namespace functorch_ext
