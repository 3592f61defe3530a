// SPDX-License-Identifier: GPL-2.0
#include "table.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>

namespace scalectl {

namespace {

constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

}  // namespace

std::string Table::text() const {
  std::vector<size_t> widths;
  std::vector<bool> right;
  std::vector<std::string> titles;
  for (const std::string& heading : headings_) {
    right.push_back(heading.ends_with(':'));
    titles.push_back(right.back() ? heading.substr(0, heading.size() - 1) : heading);
    widths.push_back(titles.back().size());
  }
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); i++) {
      const std::string pad(widths[i] - cells[i].size(), ' ');
      text += (i > 0 ? "  " : "") + (right[i] ? pad + cells[i] : cells[i] + pad);
    }
    out += text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  line(titles);
  for (const auto& row : rows_) line(row);
  return out;
}

std::string human_bytes(uint64_t bytes) {
  size_t unit = 0;
  auto value = static_cast<double>(bytes);
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    unit++;
  }
  std::array<char, 32> out{};
  std::snprintf(out.data(), out.size(), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return out.data();
}

bool parse_bytes(const std::string& text, uint64_t& bytes) {
  size_t at = 0;
  uint64_t value = 0;
  while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0) {
    if (value > UINT64_MAX / 10 - 1) return false;
    value = value * 10 + static_cast<uint64_t>(text[at++] - '0');
  }
  if (at == 0) return false;
  while (at < text.size() && text[at] == ' ') at++;
  std::string unit = text.substr(at);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  int shift = 0;
  if (!unit.empty() && unit != "B") {
    const size_t power = std::string("KMGTP").find(unit[0]);
    if (power == std::string::npos || (unit.size() > 1 && unit.substr(1) != "IB")) return false;
    shift = static_cast<int>(10 * (power + 1));
  }
  if (value > UINT64_MAX >> shift) return false;
  bytes = value << shift;
  return true;
}

}  // namespace scalectl
