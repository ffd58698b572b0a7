// Padding.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

namespace {

// Sequences (length, ...) of different lengths, padded to one and stacked.
std::optional<at::Tensor> pad_sequence(Level&, at::TensorList sequences, bool batch_first,
                                       double padding_value, c10::string_view padding_side) {
  c10::SymInt longest = 0;
  for (const auto& sequence : sequences) {
    longest = longest.max(sequence.sym_size(0));
  }
  std::vector<at::Tensor> padded;
  for (const auto& sequence : sequences) {
    // The last dimensions come first in a list of pads: before and after each.
    std::vector<c10::SymInt> pads(2 * sequence.dim(), 0);
    pads[pads.size() - (padding_side == "left" ? 2 : 1)] = longest - sequence.sym_size(0);
    padded.push_back(at::constant_pad_nd_symint(sequence, pads, padding_value));
  }
  return at::stack(padded, batch_first ? 0 : 1);
}

}  // namespace

void register_padding_rules() {
  add_decomposition<at::_ops::pad_sequence>(pad_sequence);
  // Padding names the last dimensions, and takes any number of others.
  add<at::_ops::constant_pad_nd, Leading>();

  add<at::_ops::reflection_pad1d, MergedIntoN<3>::template Family>();
  add<at::_ops::reflection_pad1d_backward, MergedIntoN<3>::template Family>();
  add<at::_ops::reflection_pad2d, MergedIntoN<4>::template Family>();
  add<at::_ops::reflection_pad2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::reflection_pad3d, MergedIntoN<5>::template Family>();
  add<at::_ops::reflection_pad3d_backward, MergedIntoN<5>::template Family>();
  add<at::_ops::replication_pad1d, MergedIntoN<3>::template Family>();
  add<at::_ops::replication_pad1d_backward, MergedIntoN<3>::template Family>();
  add<at::_ops::replication_pad2d, MergedIntoN<4>::template Family>();
  add<at::_ops::replication_pad2d_backward, MergedIntoN<4>::template Family>();
  add<at::_ops::replication_pad3d, MergedIntoN<5>::template Family>();
  add<at::_ops::replication_pad3d_backward, MergedIntoN<5>::template Family>();
}

}  // namespace functorch_ext
