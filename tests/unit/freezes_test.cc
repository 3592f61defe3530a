// SPDX-License-Identifier: GPL-2.0
#include "hypervisor/freezes.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <mutex>
#include <set>

namespace {

namespace fs = std::filesystem;
using core::Code;
using core::Error;
using core::Result;
using hypervisor::Freezes;
using std::chrono::milliseconds;

constexpr milliseconds kLong{600'000};
constexpr milliseconds kShort{50};

// Guests that do as their agents are told, unless a test says otherwise.
class Guests : public ::testing::Test {
 protected:
  Guests() { fs::create_directories(folder); }
  ~Guests() override { fs::remove_all(folder); }

  Freezes::Agents agents() {
    return {[this](const std::string& uuid) -> Result<void> {
              const std::lock_guard lock(mutex);
              said_before = fs::exists(folder / uuid);
              frozen.insert(uuid);
              if (deaf) return Error{Code::conflict, "no answer"};
              return {};
            },
            [this](const std::string& uuid) -> Result<void> {
              const std::lock_guard lock(mutex);
              thaws++;
              if (gone) return Error{Code::not_found, "no such domain"};
              if (deaf) return Error{Code::conflict, "no answer"};
              frozen.erase(uuid);
              return {};
            },
            [this](const std::string&, const std::string&, bool given_up) {
              const std::lock_guard lock(mutex);
              (given_up ? gave_up : warned)++;
            }};
  }
  bool is_frozen(const std::string& uuid) {
    const std::lock_guard lock(mutex);
    return frozen.contains(uuid);
  }
  // Until it is so; a test that hangs says that it never was.
  template <class Condition>
  void wait(Condition condition) {
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        if (condition()) return;
      }
      usleep(1'000);
    }
  }
  void wait_until_forgotten(Freezes& freezes, const std::string& uuid) {
    while (!freezes.may_move(uuid)) usleep(1'000);
    freezes.moved(uuid);
  }

  const fs::path folder = fs::temp_directory_path() / ("freezes-" + std::to_string(getpid()));
  std::mutex mutex;
  std::set<std::string> frozen;
  int thaws = 0;
  int warned = 0;
  int gave_up = 0;
  bool said_before = false;
  bool deaf = false;
  bool gone = false;
};

TEST_F(Guests, OneIsFrozenUntilItIsThawed) {
  Freezes freezes(folder, agents(), kLong);
  const uint64_t ticket = freezes.freeze("a").value();
  EXPECT_TRUE(is_frozen("a"));
  EXPECT_TRUE(said_before) << "a daemon that is killed in between would not know";
  EXPECT_TRUE(freezes.thaw("a", ticket));
  wait([&] { return frozen.empty(); });
  wait_until_forgotten(freezes, "a");
  EXPECT_FALSE(fs::exists(folder / "a"));
  EXPECT_FALSE(freezes.thaw("a", ticket)) << "a second word to go on is none too many";
}

TEST_F(Guests, OneWhoseAskerIsLostGoesOnByItself) {
  Freezes freezes(folder, agents(), kShort);
  const uint64_t ticket = freezes.freeze("a").value();
  wait([&] { return frozen.empty(); });
  wait_until_forgotten(freezes, "a");
  EXPECT_FALSE(freezes.thaw("a", ticket)) << "what was taken meanwhile was not at rest until then";
}

TEST_F(Guests, EachHasItsOwnTime) {
  Freezes freezes(folder, agents(), kLong);
  freezes.freeze("a").value();
  EXPECT_TRUE(freezes.thaw("b", freezes.freeze("b").value()));
  wait([&] { return !frozen.contains("b"); });
  EXPECT_TRUE(is_frozen("a"));
}

TEST_F(Guests, OneIsFrozenForOneSnapshotAtATime) {
  Freezes freezes(folder, agents(), kLong);
  const uint64_t ticket = freezes.freeze("a").value();
  EXPECT_EQ(freezes.freeze("a").error().code, Code::conflict);
  EXPECT_TRUE(freezes.thaw("a", ticket)) << "the first one's is not over by that";
  wait_until_forgotten(freezes, "a");
  freezes.freeze("a").value();
}

TEST_F(Guests, AWordToGoOnThatComesLateIsNotForTheNextSnapshot) {
  uint64_t first = 0;
  {
    Freezes freezes(folder, agents(), kShort);
    first = freezes.freeze("a").value();
    wait_until_forgotten(freezes, "a");
  }
  // Whoever is frozen by the next daemon is not known by its number, either.
  Freezes freezes(folder, agents(), kLong);
  const uint64_t second = freezes.freeze("a").value();
  EXPECT_FALSE(freezes.thaw("a", first)) << "its guest has gone on in between";
  EXPECT_FALSE(freezes.thaw("a", 0));
  EXPECT_TRUE(is_frozen("a"));
  EXPECT_TRUE(freezes.thaw("a", second));
}

TEST_F(Guests, ADaemonThatWasKilledLetsThemGoOnWhenItBeginsAgain) {
  std::ofstream(folder / "a").flush();
  frozen.insert("a");
  Freezes freezes(folder, agents(), kLong);
  wait([&] { return frozen.empty(); });
  wait_until_forgotten(freezes, "a");
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST_F(Guests, ADaemonThatEndsLetsThemGoOn) {
  {
    Freezes freezes(folder, agents(), kLong);
    freezes.freeze("a").value();
  }
  EXPECT_FALSE(is_frozen("a"));
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST_F(Guests, AnAgentThatDoesNotAnswerMayHaveFrozenItsGuestAndIsAskedUntilItDoes) {
  deaf = true;
  Freezes freezes(folder, agents(), kLong, milliseconds(1));
  EXPECT_EQ(freezes.freeze("a").error().text, "no answer");
  wait([&] { return thaws > 3; });
  EXPECT_TRUE(is_frozen("a"));
  EXPECT_FALSE(freezes.may_move("a")) << "nobody would thaw it there";
  {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(warned, 1);
    deaf = false;
  }
  wait_until_forgotten(freezes, "a");
  EXPECT_FALSE(is_frozen("a"));
}

TEST_F(Guests, AnAgentThatNeverAnswersIsGivenUp) {
  deaf = true;
  Freezes freezes(folder, agents(), kLong, milliseconds(1));
  EXPECT_FALSE(freezes.freeze("a"));
  wait_until_forgotten(freezes, "a");
  EXPECT_EQ(gave_up, 1);
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST_F(Guests, OneThatHasEndedIsForgotten) {
  Freezes freezes(folder, agents(), kLong);
  const uint64_t ticket = freezes.freeze("a").value();
  {
    const std::lock_guard lock(mutex);
    gone = true;
  }
  EXPECT_TRUE(freezes.thaw("a", ticket));
  wait_until_forgotten(freezes, "a");
  EXPECT_EQ(warned, 0);
}

TEST_F(Guests, OneThatMovesIsNotFrozenAndOneThatIsFrozenDoesNotMove) {
  Freezes freezes(folder, agents(), kLong);
  EXPECT_TRUE(freezes.may_move("a"));
  EXPECT_EQ(freezes.freeze("a").error().code, Code::conflict);
  EXPECT_FALSE(is_frozen("a"));
  freezes.moved("a");
  const uint64_t ticket = freezes.freeze("a").value();
  EXPECT_FALSE(freezes.may_move("a"));
  EXPECT_TRUE(freezes.thaw("a", ticket));
  wait_until_forgotten(freezes, "a");
}

TEST_F(Guests, WhereItCannotBeWrittenDownNoneIsFrozen) {
  Freezes freezes(folder / "no" / "\n", agents(), kLong);
  fs::remove_all(folder / "no");
  EXPECT_EQ(freezes.freeze("a").error().code, Code::storage);
  EXPECT_FALSE(is_frozen("a"));
  EXPECT_TRUE(freezes.may_move("a"));
}

}  // namespace
