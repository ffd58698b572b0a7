#pragma once

namespace functorch_ext {

// The kernels of random operators on `randomness_key`; call it after the rules have theirs.
void register_randomness_kernels();

}  // namespace functorch_ext
