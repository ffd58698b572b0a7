// Fourier transforms.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

at::Tensor fft_c2c_rule(Level& level, const at::Tensor& self, at::SymIntArrayRef dims,
                        int64_t normalization, bool forward) {
  std::vector<c10::SymInt> physical;
  for (const auto& dim : dims) {
    physical.emplace_back(physical_dim(dim.guard_int(__FILE__, __LINE__), self.dim()));
  }
  return wrap(at::_fft_c2c_symint(at_front(self, level), physical, normalization, forward), 0,
              level);
}

}  // namespace

void register_spectral_rules() {
  add<at::_ops::_fft_r2c, AlongDims>({"dim"});
  add<at::_ops::_fft_c2r, AlongDims>({"dim"});
  add<at::_ops::_fft_c2c>(fft_c2c_rule);
}

}  // namespace functorch_ext
