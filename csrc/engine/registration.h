#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <vector>

#include "absent_operators.h"
#include "engine/kernel.h"

namespace functorch_ext {

// Registers a kernel for as long as the process lives.
void register_kernel(const c10::OperatorHandle& op, c10::DispatchKey key,
                     c10::KernelFunction kernel);

// Gives an operator a landing kernel if it has none yet: FPGA is a backend key, so without one the
// dispatcher would run a CompositeExplicitAutograd kernel on wrappers.
void ensure_landing(const c10::OperatorHandle& op);

// Registers the boxed kernels for every operator without a rule; call it after all rules.
void register_fallbacks();

// What is registered while this lives belongs to the family of rules called `name`.
class FamilyScope {
 public:
  explicit FamilyScope(const char* name);
  ~FamilyScope();
  FamilyScope(const FamilyScope&) = delete;
  FamilyScope& operator=(const FamilyScope&) = delete;
};

// How an operator with a kernel of ours is batched, for the documentation.
struct Registered {
  std::string op;
  std::string family;
  bool has_rule;  // or only a decomposition
};
const std::vector<Registered>& registered_operators();
void note_registered(const c10::OperatorHandle& op, bool has_rule);

// The position of the argument called `name` in an operator's schema.
int argument_position(const c10::OperatorHandle& op, const std::string& name);

// What add() returns: more to say about the operator.
class Added {
 public:
  explicit Added(SampleCheck& check) : check_(check) {}
  static Added nothing() {
    static SampleCheck unused;
    return Added(unused);
  }
  // Plain PyTorch isn't asked about a sample: the operator reads memory beyond its argument.
  Added& unchecked() {
    check_.turn_off();
    return *this;
  }

 private:
  SampleCheck& check_;
};

// A batching rule family is a template of the signature with a static `rule`; add<Op, Family>()
// gives the family's rule to the operator, add<Op>(function) a rule written for it alone.
namespace detail {

// `Entry` is the kernel at the entry key, for operators that look at their arguments first.
template <template <class> class Entry = Kernel, class Signature>
Added register_rule(const Operator<Signature>& op) {
  const auto add_kernel = [&]<class Functor>(c10::DispatchKey key,
                                             std::unique_ptr<Functor> kernel) {
    register_kernel(op.handle, key,
                    c10::KernelFunction::makeFromUnboxedFunctor<false, Functor>(std::move(kernel)));
  };
  note_registered(op.handle, op.rule != nullptr);
  add_kernel(entry_key, std::make_unique<Entry<Signature>>(op, /*entry=*/true));
  // With a backend kernel an implicit composite would become ambiguous for autograd.
  if (!op.traits.composite) {
    add_kernel(landing_key, std::make_unique<Kernel<Signature>>(op, /*entry=*/false));
  }
  if (op.traits.random) {
    op.sample_check->turn_off();  // it would draw
  }
  return Added(*op.sample_check);
}

template <class Op>
Operator<typename Op::schema> describe() {
  const auto handle = c10::Dispatcher::singleton().findSchemaOrThrow(Op::name, Op::overload_name);
  return {&Op::call, &Op::redispatch, handle, OperatorTraits::of(handle)};
}

template <class Signature>
struct CallPlainRule;
template <class Return, class... Parameters>
struct CallPlainRule<Return(Parameters...)> {
  static Return rule(const Operator<Return(Parameters...)>& op, Level& level,
                     Parameters... arguments) {
    return op.plain_rule(level, std::forward<Parameters>(arguments)...);
  }
};

}  // namespace detail

// Stands for an operator that rules are for and this release of PyTorch doesn't have: those in the
// table of csrc/codegen/releases.py. There is nothing to add a rule to.
template <class Op>
concept Absent = std::is_base_of_v<AbsentOperator, Op>;

template <Absent Op, template <class> class Family>
Added add(std::initializer_list<const char*> = {}) {
  return Added::nothing();
}
template <Absent Op, class Rule>
Added add(Rule&&) {
  return Added::nothing();
}

template <class Op, template <class> class Family>
Added add(std::initializer_list<const char*> dims = {},
          typename Operator<typename Op::schema>::Decomposition decomposition = nullptr) {
  auto op = detail::describe<Op>();
  op.decomposition = decomposition;
  op.rule = &Family<typename Op::schema>::rule;
  for (const char* name : dims) {
    op.dims |= uint64_t{1} << argument_position(op.handle, name);
  }
  if constexpr (requires { Family<typename Op::schema>::takes_the_same; }) {
    op.sample_check->turn_off();
  }
  return detail::register_rule(op);
}

template <class Op, template <class> class Entry = Kernel>
Added add(typename Operator<typename Op::schema>::PlainRule rule,
          typename Operator<typename Op::schema>::Decomposition decomposition = nullptr) {
  auto op = detail::describe<Op>();
  op.plain_rule = rule;
  op.decomposition = decomposition;
  op.rule = &detail::CallPlainRule<typename Op::schema>::rule;
  return detail::register_rule<Entry>(op);
}

template <class Op>
Added add(typename Operator<typename Op::schema>::Rule rule) {
  auto op = detail::describe<Op>();
  op.rule = rule;
  return detail::register_rule(op);
}

// An implicit composite that is called often, decomposed without boxing its arguments; or one with
// a decomposition of ours for batched arguments.
template <class Op>
Added add_decomposition(
    typename Operator<typename Op::schema>::Decomposition decomposition = nullptr) {
  auto op = detail::describe<Op>();
  TORCH_INTERNAL_ASSERT(op.traits.composite, op.handle.operator_name(), " needs a rule");
  op.decomposition = decomposition;
  return detail::register_rule(op);
}

}  // namespace functorch_ext
