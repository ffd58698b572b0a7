#pragma once

#include <c10/core/DispatchKeySet.h>

// Every dispatch key that the engine takes, why, and what would do in its place. PyTorch has no key
// for extensions like this one, so these are keys without kernels, of uses that it has given up or
// keeps for its tests. check_keys_are_free() looks at them at import.
namespace functorch_ext {

// On wrappers, ahead of autocast and autograd: what sees an operator first. It has to be below
// torch.func's front key, so that their transforms inside ours come first. Was meant for
// torchdistx. In its place: TESTING_ONLY_GenericWrapper, exchanged with `ahead_key`. All tests of
// vmap, of compositions and of autograd hold then, but for those with torch.func inside ours, and
// for the words of one error.
constexpr auto entry_key = c10::DispatchKey::DeferredInit;

// On wrappers, below autograd: where the kernels of a device are. Any backend without kernels would
// do: Vulkan, Metal, CustomRNGKeyId.
constexpr auto landing_key = c10::DispatchKey::FPGA;

// On wrappers of levels that run inside torch.func's transforms, ahead of torch.func's front key,
// and in thread-local state while functionalize runs. Only keys for tests are up there.
constexpr auto ahead_key = c10::DispatchKey::TESTING_ONLY_GenericWrapper;

// In thread-local state while a vmap runs or a transform differentiates. Random operators alone,
// and those of derivatives.h, have kernels on it: the others fall through at no cost. It has to be
// above torch.func's front key too, and above autograd at least.
constexpr auto randomness_key = c10::DispatchKey::TESTING_ONLY_GenericMode;
constexpr auto derivative_key = randomness_key;

// On wrappers, and on nothing else: what tells them from tensors that take over another tensor's
// keys (PyTorch's own functionalization does, but not keys that belong to vmap). The kernels that
// PyTorch has on it are those of random operators in its old vmap, and are never reached: the entry
// comes first. Any of FuncTorchVmapMode, Batched or VmapMode would do, but for the second PyTorch
// casts to a class of its own.
constexpr auto wrapper_key = c10::DispatchKey::VmapMode;

// On wrappers: makes at::isTensorSubclassLike true, so that PyTorch's derivative formulas choose
// the form that works on any tensor. The other keys that do are for tensors of PyTorch's, whose
// class it casts to (functorch's, functionalization's, the old vmap's), or change the layout
// (sparse) or who is called (Python). The bit of a backend without a functionality is no key to
// dispatch on.
constexpr auto subclass_mark = c10::BackendComponent::MetaBit;

// A device that no build of PyTorch has kernels for, so that the dispatcher takes a composition of
// other operators for it. Nothing is registered on it. Any other such backend would do.
constexpr auto key_without_kernels = c10::DispatchKey::MAIA;

// torch.func's: on while its transforms run, and on the tensors of its transforms.
constexpr c10::DispatchKeySet torch_func_modes({c10::DispatchKey::FuncTorchDynamicLayerFrontMode,
                                                c10::DispatchKey::FuncTorchDynamicLayerBackMode});
constexpr c10::DispatchKeySet torch_func_wrappers({c10::DispatchKey::FuncTorchGradWrapper,
                                                   c10::DispatchKey::FuncTorchBatched,
                                                   c10::DispatchKey::BatchedNestedTensor,
                                                   c10::DispatchKey::Functionalize});

// What is left of an operator's keys below one of them.
inline c10::DispatchKeySet keys_below(c10::DispatchKey key, c10::DispatchKeySet keys) {
  return keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, key);
}

// Raises if somebody has registered kernels on these keys; call it before anything is registered.
void check_keys_are_free();

}  // namespace functorch_ext
