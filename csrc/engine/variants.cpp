#include "engine/variants.h"

#include <unordered_map>

namespace functorch_ext {

namespace {

using Table = std::unordered_map<std::string, std::string>;

const Table& functional_variants() {
  static const auto* table = new Table{
#include "functional_variants.inc"
  };
  return *table;
}

const Table& view_copy_variants() {
  static const auto* table = new Table{
#include "view_copy_variants.inc"
  };
  return *table;
}

std::optional<c10::OperatorHandle> find(const Table& table, const c10::OperatorHandle& op) {
  const auto row = table.find(c10::toString(op.operator_name()));
  return row == table.end() ? std::nullopt : std::optional(operator_called(row->second));
}

}  // namespace

c10::OperatorHandle operator_called(const std::string& name) {
  const auto dot = name.find('.');
  return c10::Dispatcher::singleton().findSchemaOrThrow(
      name.substr(0, dot).c_str(), dot == std::string::npos ? "" : name.substr(dot + 1).c_str());
}

std::optional<c10::OperatorHandle> functional_variant(const c10::OperatorHandle& op) {
  return find(functional_variants(), op);
}

std::optional<c10::OperatorHandle> view_copy_variant(const c10::OperatorHandle& op) {
  return find(view_copy_variants(), op);
}

c10::OperatorHandle view_variant(const c10::OperatorHandle& op) {
  auto name = op.schema().name();
  name.pop_back();  // the underscore
  const auto& overload = op.schema().overload_name();
  return operator_called(name == "aten::transpose" ? "aten::transpose.int"
                         : overload.empty()        ? name
                                                   : name + "." + overload);
}

}  // namespace functorch_ext
