// SPDX-License-Identifier: GPL-2.0
#include "journal/local_log.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

using core::Code;
using journal::LocalLog;
namespace fs = std::filesystem;

class LocalLogTest : public testing::Test {
 protected:
  LocalLogTest() : dir_(fs::temp_directory_path() / ("scribe-log-" + std::to_string(::getpid()))) {
    fs::remove_all(dir_);
  }
  ~LocalLogTest() override { fs::remove_all(dir_); }

  std::unique_ptr<LocalLog> open(size_t file_bytes = 1 << 20) {
    return LocalLog::open(dir_, file_bytes).value();
  }
  std::unique_ptr<LocalLog> filled(uint64_t entries, size_t file_bytes = 1 << 20) {
    auto log = open(file_bytes);
    for (uint64_t i = log->head() + 1; i <= entries; i++)
      log->append(i, log->head_hash(), payload(i)).value();
    return log;
  }
  static std::string payload(uint64_t i) { return std::string(i * 7 % 50, static_cast<char>(i)); }
  fs::path file() const { return fs::directory_iterator(dir_)->path(); }
  static std::string content(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void overwrite(const fs::path& path, const std::string& data) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << data;
  }

  fs::path dir_;
};

TEST_F(LocalLogTest, WhatWasAppendedIsThereAfterReopening) {
  const uint64_t hash = filled(20)->head_hash();
  auto log = open();
  EXPECT_EQ(log->head(), 20U);
  EXPECT_EQ(log->head_hash(), hash);
  for (uint64_t i = 1; i <= 20; i++) EXPECT_EQ(log->read(i)->payload, payload(i));
  EXPECT_EQ(log->read(0).error().code, Code::not_found);
  EXPECT_EQ(log->read(21).error().code, Code::not_found);
  EXPECT_EQ(log->append(21, log->head_hash(), "more")->index, 21U);
}

TEST_F(LocalLogTest, GapsRepeatsAndLargeEntriesAreRefusedWithoutEffect) {
  auto log = filled(3);
  EXPECT_EQ(log->append(3, log->head_hash(), "").error().code, Code::conflict);
  EXPECT_EQ(log->append(5, log->head_hash(), "").error().code, Code::conflict);
  EXPECT_EQ(log->append(4, log->head_hash(), std::string(journal::kMaxPayloadBytes + 1, 'x'))
                .error()
                .code,
            Code::invalid);
  EXPECT_EQ(log->append(4, log->head_hash(), std::string(journal::kMaxPayloadBytes, 'x'))->index,
            4U);
}

TEST_F(LocalLogTest, ARecordTornAtAnyByteIsCutOffAndTheLogGoesOn) {
  filled(3);
  const std::string two = [&] {
    const std::string whole = content(file());
    return whole.substr(0, whole.size() - 32 - payload(3).size());
  }();
  const std::string whole = content(file());
  for (size_t size = two.size(); size < whole.size(); size++) {
    overwrite(file(), whole.substr(0, size));
    auto log = open();
    ASSERT_EQ(log->head(), 2U) << size;
    ASSERT_EQ(log->append(3, log->head_hash(), payload(3))->index, 3U);
    ASSERT_EQ(content(file()), whole) << "the chain is the same again";
  }
}

TEST_F(LocalLogTest, DamageWithGoodRecordsBehindItIsRefusedAndLeftUntouched) {
  filled(8);
  const std::string whole = content(file());
  const size_t last = whole.size() - 32 - payload(8).size();
  for (size_t at = 0; at < last; at += 3) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    overwrite(file(), bad);
    const auto log = LocalLog::open(dir_);
    ASSERT_FALSE(log) << at;
    EXPECT_EQ(log.error().code, Code::corrupt);
    EXPECT_EQ(content(file()), bad);
  }
}

TEST_F(LocalLogTest, AnEntryOfAnotherHistoryDoesNotFitTheChain) {
  filled(3);
  const std::string ours = content(file());
  fs::remove_all(dir_);
  {
    auto other = open();
    for (uint64_t i = 1; i <= 4; i++) other->append(i, other->head_hash(), "another").value();
  }
  const std::string theirs = content(file());
  overwrite(file(), ours + theirs.substr(3 * (32 + 7)));
  EXPECT_EQ(LocalLog::open(dir_).error().code, Code::corrupt);
}

TEST_F(LocalLogTest, TrimmingDropsWholeFilesAndSurvivesReopening) {
  auto log = filled(100, 200);
  const uint64_t hash = log->head_hash();
  log->trim(60).value();
  EXPECT_LE(log->first(), 61U);
  EXPECT_GT(log->first(), 50U);
  log = open(200);
  EXPECT_EQ(log->head(), 100U);
  EXPECT_EQ(log->head_hash(), hash);
  EXPECT_EQ(log->read(61)->payload, payload(61));
  EXPECT_EQ(log->read(log->first() - 1).error().code, Code::not_found);
  log->trim(1000).value();
  EXPECT_EQ(open(200)->head(), 100U) << "the head stays known";
}

TEST_F(LocalLogTest, AMissingFileInTheMiddleIsFound) {
  auto log = filled(60, 200);
  log.reset();
  std::vector<fs::path> files(fs::directory_iterator(dir_), {});
  std::sort(files.begin(), files.end());
  ASSERT_GT(files.size(), 3U);
  fs::remove(files[files.size() / 2]);
  EXPECT_EQ(LocalLog::open(dir_).error().code, Code::corrupt);
}

TEST_F(LocalLogTest, AfterAWriteThatFailedNothingIsAcceptedUntilTheLogIsOpenedAgain) {
  auto log = filled(3);
  const auto size = fs::file_size(file());
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit tight{size + 10, old.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto failed = log->append(4, log->head_hash(), "does not fit");
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Code::unknown);
  EXPECT_EQ(log->append(4, log->head_hash(), "again").error().code, Code::storage);
  EXPECT_EQ(log->read(3)->payload, payload(3));
  log = open();
  EXPECT_EQ(log->head(), 3U);
  EXPECT_EQ(log->append(4, log->head_hash(), "again")->payload, "again");
}

}  // namespace
