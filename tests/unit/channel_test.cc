// SPDX-License-Identifier: GPL-2.0
#include "host/channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

namespace {

using host::Channel;
using host::Tunnel;

struct Pair {
  Pair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0); }
  std::array<int, 2> ends{-1, -1};
};

std::string read_all(int fd) {
  std::string out;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(fd, buffer.data(), buffer.size())) > 0;)
    out.append(buffer.data(), static_cast<size_t>(got));
  return out;
}

void write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t done = ::send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (done <= 0) return;
    at += static_cast<size_t>(done);
  }
}

std::string noise(size_t bytes) {
  std::string out(bytes, '\0');
  uint32_t state = 1;
  for (char& c : out) c = static_cast<char>((state = state * 1664525U + 1013904223U) >> 24);
  return out;
}

TEST(Channel, WhatGoesInComesOutOnTheOtherSideBothWaysAtOnce) {
  const Pair left;
  const Pair right;
  const std::string there = noise(3'000'001);
  const std::string back = noise(2'000'003);
  {
    const Channel channel(left.ends[1], right.ends[1]);
    std::jthread one([&] {
      write_all(left.ends[0], there);
      ::shutdown(left.ends[0], SHUT_WR);
    });
    std::jthread other([&] {
      write_all(right.ends[0], back);
      ::shutdown(right.ends[0], SHUT_WR);
    });
    std::string got_back;
    std::jthread reader([&] { got_back = read_all(left.ends[0]); });
    EXPECT_EQ(read_all(right.ends[0]), there);
    reader.join();
    EXPECT_EQ(got_back, back) << "though the other direction had ended";
    while (!channel.over()) std::this_thread::yield();
  }
  ::close(left.ends[0]);
  ::close(right.ends[0]);
}

TEST(Channel, WhereOneSideBreaksTheOtherEnds) {
  const Pair left;
  const Pair right;
  const Channel channel(left.ends[1], right.ends[1]);
  ::close(left.ends[0]);
  write_all(right.ends[0], noise(1'000'000));
  EXPECT_EQ(read_all(right.ends[0]), "");
  while (!channel.over()) std::this_thread::yield();
  ::close(right.ends[0]);
}

TEST(Channel, ItsEndEndsBothSides) {
  const Pair left;
  const Pair right;
  { const Channel channel(left.ends[1], right.ends[1]); }
  EXPECT_EQ(read_all(left.ends[0]), "");
  EXPECT_EQ(read_all(right.ends[0]), "");
  ::close(left.ends[0]);
  ::close(right.ends[0]);
}

class Tunnels : public ::testing::Test {
 protected:
  Tunnels() {
    std::string pattern = testing::TempDir() + "tunnelXXXXXX";
    place_ = mkdtemp(pattern.data());
  }
  ~Tunnels() override { std::filesystem::remove_all(place_); }
  std::string path() const { return place_ / "socket"; }

 private:
  std::filesystem::path place_;
};

TEST_F(Tunnels, EachConnectionLeadsToTheOtherEnd) {
  {
    Tunnel far(path() + "-far", [] {
      const Pair echo;
      std::thread([fd = echo.ends[0]] {
        write_all(fd, "you said " + read_all(fd));
        ::close(fd);
      }).detach();
      return core::Result<int>(echo.ends[1]);
    });
    ASSERT_TRUE(far.listen());
    Tunnel near(path(), [&] { return host::connect_local(path() + "-far"); });
    ASSERT_TRUE(near.listen());
    for (const char* word : {"a", "b"}) {
      const int fd = host::connect_local(path()).value();
      write_all(fd, word);
      ::shutdown(fd, SHUT_WR);
      EXPECT_EQ(read_all(fd), std::string("you said ") + word);
      ::close(fd);
    }
    const auto mode = std::filesystem::status(path()).permissions();
    EXPECT_EQ(mode & std::filesystem::perms::mask,
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  }
  EXPECT_FALSE(std::filesystem::exists(path())) << "the socket goes with it";
}

TEST_F(Tunnels, OneIsIdleWhenNobodyIsThereAnyMore) {
  const Pair far;
  Tunnel tunnel(path(), [&] { return core::Result<int>(::dup(far.ends[1])); });
  ASSERT_TRUE(tunnel.listen());
  EXPECT_TRUE(tunnel.idle());
  const int fd = host::connect_local(path()).value();
  write_all(fd, "x");
  char got = 0;
  ASSERT_EQ(::read(far.ends[0], &got, 1), 1);
  EXPECT_FALSE(tunnel.idle());
  ::close(fd);
  ::shutdown(far.ends[0], SHUT_RDWR);
  while (!tunnel.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::close(far.ends[0]);
  ::close(far.ends[1]);
}

TEST_F(Tunnels, WhereTheOtherEndCannotBeReachedAConnectionEnds) {
  Tunnel tunnel(path(), [&] { return host::connect_local(path() + "-nobody"); });
  ASSERT_TRUE(tunnel.listen());
  const int fd = host::connect_local(path()).value();
  EXPECT_EQ(read_all(fd), "");
  ::close(fd);
  Tunnel nowhere(path() + std::string(200, 'x'), [] { return core::Result<int>(-1); });
  EXPECT_EQ(nowhere.listen().error().code, core::Code::invalid);
}

}  // namespace
