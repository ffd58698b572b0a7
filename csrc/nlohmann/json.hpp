#pragma once

#include <string>

// PyTorch's headers of torch.func name this library without bringing it along. Of what they compile
// with it nothing is called here, so declarations do.
namespace nlohmann {
struct json {
  json();
  template <class Value>
  json(const Value& value);
  std::string dump() const;
  static json parse(const std::string& text);
  template <class Value>
  Value get() const;
};
}  // namespace nlohmann
