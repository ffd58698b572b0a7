#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/autograd/edge.h>

#include <memory>
#include <type_traits>
#include <utility>

// Autograd's nodes, which releases of PyTorch count in one of two ways: by std::shared_ptr or by
// c10::intrusive_ptr.
namespace functorch_ext {

constexpr bool nodes_are_shared = std::is_same_v<decltype(torch::autograd::Edge::function),
                                                 std::shared_ptr<torch::autograd::Node>>;

template <class T = torch::autograd::Node>
using NodePtr = std::conditional_t<nodes_are_shared, std::shared_ptr<T>, c10::intrusive_ptr<T>>;

template <class T = torch::autograd::Node>
using WeakNodePtr =
    std::conditional_t<nodes_are_shared, std::weak_ptr<T>, c10::weak_intrusive_ptr<T>>;

template <class T, class... Arguments>
NodePtr<T> make_node(Arguments&&... arguments) {
  if constexpr (nodes_are_shared) {
    // PyTorch's way to delete a node (found by its argument) doesn't recur along long graphs.
    return NodePtr<T>(new T(std::forward<Arguments>(arguments)...),
                      [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<T>(std::forward<Arguments>(arguments)...);
  }
}

// Another pointer to a node.
template <class T>
NodePtr<> pointer_to(T& node) {
  if constexpr (nodes_are_shared) {
    return node.shared_from_this();
  } else {
    return NodePtr<T>::reclaim_copy(&node);
  }
}

// The node that an object of Python's holds: it keeps a node of C++ alive, but not one of Python.
template <class T>
NodePtr<> held_node(const std::weak_ptr<T>& node) {
  return node.lock();
}
template <class Pointer>
NodePtr<> held_node(const Pointer& node) {
  return node;
}

}  // namespace functorch_ext
