// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace scalectl {

inline constexpr uint64_t kMib = uint64_t{1} << 20;
inline constexpr uint64_t kDaySeconds = 86'400;

/// Aligned columns; numbers are to the right where their heading ends in ':'.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : headings_(std::move(headings)) {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] std::string text() const;

 private:
  std::vector<std::string> headings_;
  std::vector<std::vector<std::string>> rows_;
};

/// 4294967296 -> "4.0 GiB".
[[nodiscard]] std::string human_bytes(uint64_t bytes);

/// "4GiB", "4G", "512 MiB", "1048576"; false where it is no size.
[[nodiscard]] bool parse_bytes(const std::string& text, uint64_t& bytes);

}  // namespace scalectl
