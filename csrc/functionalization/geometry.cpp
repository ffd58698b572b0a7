#include "functionalization/geometry.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "engine/boxed.h"

namespace functorch_ext {

namespace {

// Neither autograd nor Python sees what is done to tensors without data.
class Unseen {
 public:
  Unseen() : saved_(c10::impl::tls_local_dispatch_key_set()) {
    constexpr c10::DispatchKeySet watching(
        {c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot,
         c10::DispatchKey::PreDispatch, c10::DispatchKey::TESTING_ONLY_GenericMode,
         c10::DispatchKey::TESTING_ONLY_GenericWrapper});
    auto changed = saved_;
    changed.excluded_ =
        changed.excluded_ | watching | c10::autograd_dispatch_keyset_with_ADInplaceOrView;
    changed.included_ = changed.included_ - watching;
    c10::impl::_force_tls_local_dispatch_key_set(changed);
  }
  ~Unseen() {
    c10::impl::_force_tls_local_dispatch_key_set(saved_);
  }
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;

 private:
  const c10::impl::LocalDispatchKeySet saved_;
};

at::Tensor without_data(const at::Tensor& like) {
  auto tensor = at::empty({0}, at::TensorOptions(at::kMeta).dtype(like.scalar_type()));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sym_sizes(), like.sym_strides(),
                                                      like.sym_storage_offset());
  return tensor;
}

}  // namespace

std::vector<at::Tensor> geometries_of_view(const c10::OperatorHandle& op,
                                           torch::jit::Stack arguments, size_t self_position,
                                           const at::Tensor& self, const at::Tensor& value) {
  if (op.schema().name().rfind("aten::", 0) != 0 || value.layout() != at::kStrided) {
    return {};
  }
  const Unseen unseen;
  arguments[self_position] = without_data(self);
  op.callBoxed(&arguments);
  std::vector<at::Tensor> results;
  rewrite_stack(arguments, arguments.size(), [&](const at::Tensor& result) {
    results.push_back(result);
    return result;
  });
  return results;
}

}  // namespace functorch_ext
