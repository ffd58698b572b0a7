// Random operators as the program calls them, ahead of everything else: which vmap draws, once or
// for each sample.

#include <algorithm>

#include "batching/operators.h"
#include "batching/physical.h"
#include "batching/rules.h"
#include "engine/boxed.h"
#include "engine/own_memory.h"
#include "engine/randomness.h"
#include "engine/registration.h"
#include "engine/repeated_draws.h"
#include "engine/torch_func.h"

namespace functorch_ext {

namespace {

// Does this call draw anything? Dropout doesn't in evaluation mode or with probability 0.
bool draws(const c10::OperatorHandle& op, const Stack& stack) {
  const auto& arguments = op.schema().arguments();
  const bool is_dropout = op.schema().name().find("dropout") != std::string::npos;
  const auto offset = stack.size() - arguments.size();
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& name = arguments[i].name();
    const auto& value = stack[offset + i];
    if ((name == "train" || name == "training") && value.isBool() && !value.toBool()) {
      return false;
    }
    const bool is_rate = name == "dropout" || name == "dropout_p" || (is_dropout && name == "p");
    if (is_rate && value.isDouble() && value.toDouble() == 0) {
      return false;
    }
  }
  return true;
}

// The position on the stack of the first tensor among the arguments.
std::optional<size_t> first_tensor_position(const c10::OperatorHandle& op, const Stack& stack) {
  for (auto i = stack.size() - op.schema().arguments().size(); i < stack.size(); ++i) {
    if (stack[i].isTensor() && stack[i].toTensor().defined()) {
      return i;
    }
  }
  return std::nullopt;
}

// The tensor as a batched one whose samples are all equal, linked to it for autograd.
at::Tensor as_batched(const at::Tensor& tensor, const Level& level) {
  if (wrapper_at(tensor, level)) {
    const auto zeros = value_of(tensor, level).new_zeros({}).expand_symint(level.batch_size);
    return at::add(tensor, wrap(zeros, 0, level));
  }
  PlaneBelow below(level);
  return wrap(expanded_at_front(tensor, level), 0, level);
}

// An operator without tensor arguments draws for all samples: the batch size goes in front of its
// `size`; without one (randperm) it is called once a sample.
void draw_anew(const c10::OperatorHandle& op, const Level& level, Stack* stack) {
  PlaneBelow below(level);
  const auto count = op.schema().arguments().size();
  if (const auto size = op.schema().argumentIndexWithName("size")) {
    auto& argument = (*stack)[stack->size() - count + *size];
    argument = physical_sizes(argument.toSymIntVector(), level);
    op.callBoxed(stack);
    stack->back() = wrap(stack->back().toTensor(), 0, level);
    return;
  }
  const std::vector<c10::IValue> arguments(stack->end() - count, stack->end());
  torch::jit::drop(*stack, count);
  std::vector<at::Tensor> draws;
  const auto samples = level.batch_size.guard_int(__FILE__, __LINE__);
  for (int64_t sample = 0; sample < std::max<int64_t>(samples, 1); ++sample) {
    Stack call(arguments);
    op.callBoxed(&call);
    draws.push_back(call.back().toTensor());
  }
  stack->push_back(wrap(at::stack(draws).narrow_symint(0, 0, level.batch_size), 0, level));
}

// rrelu_with_noise tells its derivative formula what it drew through `noise`, which nothing else
// reads: its rule replaces that.
bool writes_result(const c10::OperatorHandle& op) {
  return op.schema().is_mutable() && op.schema().name() != "aten::rrelu_with_noise";
}

// Of out= variants, which draw into a tensor that they are given.
void drawing_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  RepeatedDraws::note(op, *stack);
  op.redispatchBoxed(keys_below(randomness_key, keys), stack);
}

// Does a Jacobian whose columns the caller is one of forbid it to draw?
bool columns_forbid_draws() {
  const auto& state = thread_state();
  const Level* level = state.computing ? state.computing->parent.get() : state.innermost.get();
  while (level && (!level->is_vmap())) {
    if (level->is_basis && level->randomness == Randomness::Error) {
      return true;
    }
    level = level->parent.get();
  }
  return false;
}

void random_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, Stack* stack) {
  if (call_without_ended_layers(op, keys, stack)) {
    return;
  }
  TORCH_CHECK(!columns_forbid_draws() || !draws(op, *stack),
              "functorch_ext.jacfwd: called random operation ", op.operator_name(),
              " while randomness='error'. Pass randomness='same' to jacfwd to draw once for all "
              "columns, or randomness='different' to draw anew for each.");
  RepeatedDraws::note(op, *stack);
  const auto onwards = keys_below(randomness_key, keys);
  const auto layers = running_layers();
  const Level* level = level_of_randomness(layers);
  DeepestLevel deepest;
  bool batched = false;
  if (level) {
    for_each_tensor_on_stack(op, *stack, [&](const at::Tensor& tensor) {
      deepest(tensor);
      batched = batched || is_batched_at(tensor, *level);
    });
  }
  const auto depth = deepest.level ? deepest.level->depth : 0;
  // Operators on tensors of a deeper level reach this level from the deeper one's rule, and those
  // inside a transform of torch.func's from that.
  if (!level || layers > level->layers || deepest.any_escaped || depth > level->depth ||
      !draws(op, *stack)) {
    op.redispatchBoxed(onwards, stack);
    return;
  }
  check_randomness_allowed(*level, op);
  const bool composite = OperatorTraits::of(op).composite;
  if (level->randomness == Randomness::Same) {
    if (composite || depth == level->depth) {
      op.redispatchBoxed(onwards, stack);
    } else {
      PlaneBelow below(*level);
      op.callBoxed(stack);
    }
    return;
  }
  const auto first = first_tensor_position(op, *stack);
  if (!batched && first && op.schema().is_mutable()) {
    const PlaneBelow below(*level);
    batched = make_batched((*stack)[*first].toTensor(), *level);
  }
  if (batched) {
    op.redispatchBoxed(onwards, stack);
  } else if (!first) {
    draw_anew(op, *level, stack);
  } else {
    if (writes_result(op)) {
      raise_shared_target(op);
    }
    (*stack)[*first] = as_batched((*stack)[*first].toTensor(), *level);
    op.callBoxed(stack);
  }
}

bool returns_new_tensors(const c10::OperatorHandle& op) {
  const auto& arguments = op.schema().arguments();
  const auto& returns = op.schema().returns();
  return !returns.empty() && returns[0].type()->isSubtypeOf(*c10::TensorType::get()) &&
         std::none_of(arguments.begin(), arguments.end(),
                      [](const auto& argument) { return argument.is_out(); });
}

}  // namespace

void register_random_kernels() {
  auto& dispatcher = c10::Dispatcher::singleton();
  // Stays until the process ends, past the destructors of libtorch's dispatcher.
  static auto* fallback = new c10::RegistrationHandleRAII(dispatcher.registerFallback(
      randomness_key, c10::KernelFunction::makeFallthrough(), "functorch_ext"));
  static_cast<void>(fallback);
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(name);
    // Those that a family gave a kernel of their own draw through others.
    if (op && op->hasTag(at::Tag::nondeterministic_seeded) &&
        !op->hasKernelForDispatchKey(randomness_key)) {
      register_kernel(*op, randomness_key,
                      returns_new_tensors(*op)
                          ? c10::KernelFunction::makeFromBoxedFunction<&random_operator>()
                          : c10::KernelFunction::makeFromBoxedFunction<&drawing_operator>());
    }
  }
}

}  // namespace functorch_ext
