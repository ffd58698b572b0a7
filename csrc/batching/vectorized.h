#pragma once

// Lets GCC take several numbers at a time: as many as the processor takes, where that is known when
// the library is loaded. The numbers are the same; comparisons needn't report what isn't a number.
#if defined(__GNUC__) && !defined(__clang__)
#if defined(__x86_64__) && defined(__GLIBC__)
#define FUNCTORCH_EXT_VECTORIZED \
  __attribute__((optimize("O3", "no-trapping-math"), target_clones("avx2", "default")))
#else
#define FUNCTORCH_EXT_VECTORIZED __attribute__((optimize("O3", "no-trapping-math")))
#endif
#else
#define FUNCTORCH_EXT_VECTORIZED
#endif
