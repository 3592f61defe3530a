// SPDX-License-Identifier: GPL-2.0
#include "host/cpu.h"

#include <gtest/gtest.h>

namespace {

std::string cpuinfo(const std::string& model, const std::string& flags) {
  return "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: " + model +
         "\nmodel name\t: some CPU\ncpu MHz\t\t: 3000.000\nflags\t\t: " + flags +
         "\n\nprocessor\t: 1\nvendor_id\t: Other\nflags\t\t: x\n";
}

TEST(Cpu, TheSameKindHasTheSameWord) {
  const std::string kind = host::cpu_kind(cpuinfo("1", "sse avx aes"));
  EXPECT_EQ(kind.substr(0, 18), "AuthenticAMD-25-1-");
  EXPECT_EQ(kind.size(), 34U);
  EXPECT_EQ(kind, host::cpu_kind(cpuinfo("1", "avx sse aes"))) << "in whatever order";
  EXPECT_NE(kind, host::cpu_kind(cpuinfo("2", "sse avx aes")));
  EXPECT_NE(kind, host::cpu_kind(cpuinfo("1", "sse avx")));
  EXPECT_EQ(host::cpu_kind(""), "");
  EXPECT_FALSE(host::cpu_kind().empty()) << "this machine's";
}

}  // namespace
