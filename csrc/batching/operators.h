#pragma once

// All of PyTorch's operators: at::sum(...), and at::_ops::sum_dim_IntList for add<>().
#include <ATen/Functions.h>
#include <ATen/Operators.h>
#include <ATen/TensorOperators.h>
