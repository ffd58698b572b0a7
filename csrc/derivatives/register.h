#pragma once

// One function a file; each registers its kernels.
namespace functorch_ext {

void register_linalg_derivatives();
void register_linear_derivatives();
void register_normalization_derivatives();
void register_norms_derivatives();
void register_softmax_derivatives();

inline void register_second_order_derivatives() {
  register_linalg_derivatives();
  register_linear_derivatives();
  register_normalization_derivatives();
  register_norms_derivatives();
  register_softmax_derivatives();
}

}  // namespace functorch_ext
