#pragma once

// Lets GCC take several numbers at a time; comparisons needn't report what isn't a number.
#if defined(__GNUC__) && !defined(__clang__)
#define FUNCTORCH_EXT_VECTORIZED __attribute__((optimize("O3", "no-trapping-math")))
#else
#define FUNCTORCH_EXT_VECTORIZED
#endif
