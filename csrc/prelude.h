// PyTorch's headers that nearly every file here uses, parsed once: setup.py compiles this header
// and includes it in front of each file. Files still include what they use.
#include <ATen/Functions.h>
#include <ATen/Operators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/boxing/impl/boxing.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>
#include <c10/core/SymInt.h>
