// SPDX-License-Identifier: GPL-2.0
// The log on a real etcd with TLS, on loopback.
#include "journal/etcd_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tls/authority.h"

extern char** environ;

namespace {

namespace fs = std::filesystem;
using core::Code;
using journal::Compare;
using journal::EtcdLog;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kTtl{6};  // above any pause of a busy machine between two calls
constexpr seconds kPatience{60};

uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  ::close(fd);
  return ntohs(address.sin_port);
}

// One etcd of our own, with a certificate of a cluster's authority.
class Server {
 public:
  Server() : dir_(fs::temp_directory_path() / ("scribe-etcd-" + std::to_string(::getpid()))) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    const auto ca = tls::make_authority("test").value();
    identity_ = {tls::issue(ca, {1}, "127.0.0.1").value(), ca.cert};
    std::ofstream(dir_ / "crt") << identity_.own.cert;
    std::ofstream(dir_ / "key") << identity_.own.key;
    std::ofstream(dir_ / "ca") << identity_.ca_cert;
    port_ = free_port();
    peer_port_ = free_port();
    start();
  }
  ~Server() {
    kill();
    fs::remove_all(dir_);
  }

  void start() {
    const std::string url = "https://127.0.0.1:" + std::to_string(port_);
    const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
    const std::vector<std::string> words = {"etcd",
                                            "--name=a",
                                            "--data-dir=" + (dir_ / "data").string(),
                                            "--listen-client-urls=" + url,
                                            "--advertise-client-urls=" + url,
                                            "--listen-peer-urls=" + peer,
                                            "--initial-advertise-peer-urls=" + peer,
                                            "--initial-cluster=a=" + peer,
                                            "--cert-file=" + (dir_ / "crt").string(),
                                            "--key-file=" + (dir_ / "key").string(),
                                            "--trusted-ca-file=" + (dir_ / "ca").string(),
                                            "--client-cert-auth",
                                            "--heartbeat-interval=100",
                                            "--election-timeout=1000",
                                            "--max-request-bytes=8388608",
                                            "--log-level=error",
                                            "--logger=zap",
                                            "--log-outputs=" + (dir_ / "log").string()};
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ASSERT_EQ(posix_spawnp(&pid_, "etcd", nullptr, nullptr, argv.data(), environ), 0);
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

  journal::Etcd::Endpoints endpoints() {
    return [this] {
      http::Target target;
      target.host = "127.0.0.1";
      target.port = port_;
      target.identity = &identity_;
      target.node = {1};
      return std::vector{target};
    };
  }

 private:
  fs::path dir_;
  tls::Identity identity_;
  uint16_t port_ = 0;
  uint16_t peer_port_ = 0;
  pid_t pid_ = 0;
};

class EtcdLogTest : public testing::Test {
 protected:
  std::unique_ptr<EtcdLog> log(uint64_t node, uint64_t most_advanced = 0) {
    return std::make_unique<EtcdLog>(core::NodeId{node}, server_.endpoints(), kTtl,
                                     [most_advanced] { return most_advanced; });
  }
  static bool wait_to_lead(EtcdLog& log, uint64_t applied) {
    const auto deadline = steady_clock::now() + kPatience;
    while (steady_clock::now() < deadline) {
      auto view = log.tend(applied);
      if (view && view->leading) return true;
      std::this_thread::sleep_for(milliseconds(100));
    }
    return false;
  }

  Server server_;
};

TEST_F(EtcdLogTest, EntriesComeBackInOrderWithTheirChain) {
  auto leader = log(1);
  ASSERT_TRUE(wait_to_lead(*leader, 0));
  uint64_t hash = 0;
  for (uint64_t i = 1; i <= 20; i++) {
    const std::string payload(i * 5000, static_cast<char>(i));
    ASSERT_TRUE(leader->tend(i));
    auto entry = leader->append(i, hash, payload);
    ASSERT_TRUE(entry) << entry.error().text;
    hash = entry->hash;
  }
  auto reader = log(2);
  EXPECT_EQ(reader->tend(0)->leader, core::NodeId{1});
  auto entries = reader->read_from(11, 100);
  ASSERT_TRUE(entries) << entries.error().text;
  ASSERT_EQ(entries->size(), 10U);
  EXPECT_EQ(entries->front().payload, std::string(55000, 11));
  EXPECT_EQ(entries->back().hash, hash);
  for (size_t i = 1; i < entries->size(); i++)
    EXPECT_EQ((*entries)[i].prev_hash, (*entries)[i - 1].hash);
  EXPECT_TRUE(reader->read_from(21, 100)->empty());
  leader->trim(5).value();
  EXPECT_EQ(reader->read_from(3, 100).error().code, Code::stale);
  EXPECT_EQ(reader->read_from(6, 100)->size(), 15U);
}

TEST_F(EtcdLogTest, EntriesOfTheLargestSizeAreWrittenAndReadMany) {
  auto leader = log(1);
  ASSERT_TRUE(wait_to_lead(*leader, 0));
  uint64_t hash = 0;
  for (uint64_t i = 1; i <= 4; i++) {
    ASSERT_TRUE(leader->tend(i));
    auto entry = leader->append(i, hash, std::string(journal::kMaxPayloadBytes, 'x'));
    ASSERT_TRUE(entry) << entry.error().text;
    hash = entry->hash;
  }
  EXPECT_EQ(leader->append(5, hash, std::string(journal::kMaxPayloadBytes + 1, 'x')).error().code,
            Code::invalid);
  auto entries = leader->read_from(1, 64);
  ASSERT_TRUE(entries) << entries.error().text;
  EXPECT_EQ(entries->size(), 4U);
}

TEST_F(EtcdLogTest, ALeaderThatWasReplacedAppendsNothing) {
  auto first = log(1);
  ASSERT_TRUE(wait_to_lead(*first, 0));
  const uint64_t hash = first->append(1, 0, "one")->hash;
  auto second = log(2);
  EXPECT_FALSE(second->tend(1)->leading) << "the first still leads";
  // The first is paused: its lease ends, it does not know.
  ASSERT_TRUE(wait_to_lead(*second, 1));
  EXPECT_EQ(first->append(2, hash, "late").error().code, Code::conflict);
  EXPECT_EQ(second->append(2, hash, "two")->index, 2U);
  EXPECT_EQ(second->read_from(2, 10)->front().payload, "two");
}

TEST_F(EtcdLogTest, WhoResignsMakesWayAtOnceAndLeadsNoMore) {
  auto first = log(1);
  ASSERT_TRUE(wait_to_lead(*first, 0));
  const uint64_t hash = first->append(1, 0, "one")->hash;
  auto second = log(2);
  first->resign();
  EXPECT_FALSE(first->tend(1)->leading);
  EXPECT_EQ(first->append(2, hash, "late").error().code, Code::conflict);
  EXPECT_TRUE(second->tend(1)->leading) << "without waiting for the end of a lease";
  second.reset();
  std::this_thread::sleep_for(kTtl + seconds(3));
  EXPECT_FALSE(first->tend(1)->leading);
}

TEST_F(EtcdLogTest, ANodeThatIsBehindDoesNotLead) {
  auto ahead = log(1);
  ASSERT_TRUE(wait_to_lead(*ahead, 0));
  ahead->append(1, 0, "one").value();
  ahead.reset();
  auto behind = log(2);
  auto lost = log(3, 7);
  std::this_thread::sleep_for(kTtl + seconds(3));
  EXPECT_FALSE(behind->tend(0)->leading) << "the log holds what it has not applied";
  EXPECT_FALSE(lost->tend(1)->leading) << "another database has more than the log";
  EXPECT_TRUE(wait_to_lead(*behind, 1));
}

TEST_F(EtcdLogTest, AnAppendWhoseOutcomeIsUnknownIsSettledByRepeatingIt) {
  auto leader = log(1);
  ASSERT_TRUE(wait_to_lead(*leader, 0));
  const uint64_t hash = leader->append(1, 0, "one")->hash;
  server_.kill();
  std::thread revive([this] {
    std::this_thread::sleep_for(milliseconds(300));
    server_.start();
  });
  auto entry = leader->append(2, hash, "two");
  revive.join();
  ASSERT_TRUE(entry) << entry.error().text;
  EXPECT_EQ(leader->read_from(2, 10)->size(), 1U);
  // And where the entry is there already, as after an answer that was lost.
  EXPECT_EQ(leader->read_from(1, 10)->size(), 2U);
}

TEST_F(EtcdLogTest, WithoutAQuorumAnAppendEndsWhenItIsStopped) {
  auto leader = log(1);
  ASSERT_TRUE(wait_to_lead(*leader, 0));
  server_.kill();
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(500));
    leader->stop();
  });
  EXPECT_EQ(leader->append(1, 0, "one").error().code, Code::unknown);
  stopper.join();
}

}  // namespace
