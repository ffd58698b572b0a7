// Padding.
#include "batching/families.h"
#include "batching/operators.h"
#include "batching/rules.h"

namespace functorch_ext {

void register_padding_rules() {
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
