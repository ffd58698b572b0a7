#include "autodiff/grad_mode.h"

#include <string_view>
#include <typeindex>
#include <unordered_map>
#include <unordered_set>

namespace functorch_ext {

namespace {

// Nodes whose formulas are made of differentiable operators in either mode: those of arithmetic,
// of products of matrices, of batch and layer norm, of views, of plain sums and selections, and of
// losses. (From the list of formulas that torchgen ships. Not here: silu and mish, other norms,
// fused layers, decompositions of matrices, products over a dimension; and all that is not known,
// such as nodes of the program's own.)
const std::unordered_set<std::string_view> alike_in_both_modes = {
    // Elementwise
    "AbsBackward0", "AddBackward0", "AddBackward1", "CloneBackward0", "CosBackward0",
    "CoshBackward0", "DivBackward0", "DivBackward1", "EluBackward0", "ErfBackward0", "ExpBackward0",
    "Expm1Backward0", "GeluBackward0", "LeakyReluBackward0", "LogBackward0", "MulBackward0",
    "MulBackward1", "NegBackward0", "PowBackward0", "ReciprocalBackward0", "ReluBackward0",
    "RsqrtBackward0", "RsubBackward0", "RsubBackward1", "SigmoidBackward0", "SinBackward0",
    "SinhBackward0", "SoftplusBackward0", "SqrtBackward0", "SubBackward0", "SubBackward1",
    "TanhBackward0", "ThresholdBackward0", "ToCopyBackward0", "WhereBackward0",
    // Products of matrices
    "AddmmBackward0", "AddmvBackward0", "BaddbmmBackward0", "BmmBackward0", "ConvolutionBackward0",
    "DotBackward0", "functorch_ext::LinearBackward", "functorch_ext::ProductOfStacksBackward",
    "functorch_ext::WeightOfSteps", "MmBackward0", "MvBackward0",
    // Normalization
    "NativeBatchNormBackward0", "NativeLayerNormBackward0",
    // Views
    "AliasBackward0", "ExpandBackward0", "PermuteBackward0", "ReshapeAliasBackward0",
    "SelectBackward0", "SliceBackward0", "SqueezeBackward0", "SqueezeBackward1", "TBackward0",
    "TransposeBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0", "ViewBackward0",
    // Sums, and parts joined or picked out
    "CatBackward0", "GatherBackward0", "IndexBackward0", "IndexSelectBackward0",
    "MaxPool2DWithIndicesBackward0", "MeanBackward0", "MeanBackward1", "StackBackward0",
    "SumBackward0", "SumBackward1",
    // Losses
    "HuberLossBackward0", "LogSoftmaxBackward0", "MseLossBackward0", "NllLossBackward0",
    "SmoothL1LossBackward0",
    // Leaves
    "torch::autograd::AccumulateGrad"};

// Without grad mode they are operators that have a forward mode of ours, but no second derivative.
const std::unordered_set<std::string_view> alike_to_tangents = {"NativeGroupNormBackward0"};

}  // namespace

bool may_depend_on_grad_mode(const torch::autograd::Node& node, bool tangents_alone) {
  // A node knows its name as a new string; its type tells the same at once.
  enum class Dependence { None, OfReverseMode, Any };
  static thread_local std::unordered_map<std::type_index, Dependence> known;
  const auto [entry, is_new] = known.try_emplace(typeid(node), Dependence::Any);
  if (is_new) {
    const auto name = node.name();
    entry->second = alike_in_both_modes.count(name) > 0 ? Dependence::None
                    : alike_to_tangents.count(name) > 0 ? Dependence::OfReverseMode
                                                        : Dependence::Any;
  }
  return entry->second > (tangents_alone ? Dependence::OfReverseMode : Dependence::None);
}

}  // namespace functorch_ext
