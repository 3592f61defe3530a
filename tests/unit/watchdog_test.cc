// SPDX-License-Identifier: GPL-2.0
// What can be had without a device; that a node is really reset is a case of cluster.py.
#include "host/watchdog.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using namespace std::chrono_literals;
using core::Code;

class Watchdogs : public testing::Test {
 protected:
  Watchdogs() {
    std::string pattern = testing::TempDir() + "watchdogXXXXXX";
    place_ = mkdtemp(pattern.data());
    std::filesystem::create_directories(place_ / "dev");
    std::filesystem::create_directories(place_ / "sys");
  }
  ~Watchdogs() override { std::filesystem::remove_all(place_); }

  /// A file in a device's stead: it can be opened, but knows no timeout.
  void device(const std::string& name, const std::string& identity, const std::string& state) {
    const auto at = place_ / "sys" / name;
    std::filesystem::create_directories(at);
    std::ofstream(at / "identity") << identity << "\n";
    std::ofstream(at / "state") << state << "\n";
    const std::ofstream made(place_ / "dev" / name);
  }
  std::string written_to(const std::string& name) {
    std::ifstream in(place_ / "dev" / name);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path place_;
};

TEST_F(Watchdogs, AMachineWithoutOneSaysSo) {
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  auto armed = dog.arm(40s);
  ASSERT_FALSE(armed);
  EXPECT_EQ(armed.error().code, Code::not_found);
  EXPECT_EQ(dog.in_use(), "");
  dog.pet();
  dog.disarm(false);
}

TEST_F(Watchdogs, OneThatCannotBeOpenedIsNamed) {
  device("watchdog0", "some timer", "active");
  std::filesystem::remove(place_ / "dev/watchdog0");
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  auto armed = dog.arm(40s);
  ASSERT_FALSE(armed);
  EXPECT_EQ(armed.error().code, Code::conflict);
  EXPECT_NE(armed.error().text.find("watchdog0 (some timer)"), std::string::npos)
      << armed.error().text;
}

TEST_F(Watchdogs, OneThatDoesNotTakeTheTimeoutIsLetGoWithoutAReset) {
  device("watchdog0", "some timer", "inactive");
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  auto armed = dog.arm(40s);
  ASSERT_FALSE(armed);
  EXPECT_EQ(armed.error().code, Code::invalid);
  EXPECT_EQ(written_to("watchdog0"), "V");
  EXPECT_EQ(dog.in_use(), "");
}

TEST_F(Watchdogs, HardwareIsTriedBeforeSoftware) {
  device("watchdog0", "Software Watchdog", "inactive");
  device("watchdog1", "some timer", "inactive");
  std::filesystem::remove(place_ / "dev/watchdog0");
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  auto armed = dog.arm(40s);
  ASSERT_FALSE(armed);
  // Both were tried, the software last.
  EXPECT_EQ(written_to("watchdog1"), "V");
  EXPECT_NE(armed.error().text.find("watchdog0"), std::string::npos) << armed.error().text;
}

TEST_F(Watchdogs, OneThatAnEarlierRunLeftArmedIsDisarmedAndOthersStayUntouched) {
  device("watchdog0", "some timer", "inactive");
  device("watchdog1", "other timer", "active");
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  dog.disarm(false);
  EXPECT_EQ(written_to("watchdog0"), "");
  EXPECT_EQ(written_to("watchdog1"), "V");
}

TEST_F(Watchdogs, NoneIsArmedAnyMoreAfterTheEnd) {
  device("watchdog0", "some timer", "inactive");
  host::Watchdog dog(place_ / "dev", place_ / "sys");
  dog.disarm(true);
  EXPECT_TRUE(dog.arm(40s));
  EXPECT_EQ(dog.in_use(), "");
  EXPECT_EQ(written_to("watchdog0"), "");
}

}  // namespace
