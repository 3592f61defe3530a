// SPDX-License-Identifier: GPL-2.0
// The command line itself: every command of the table, with all that can be wrong before scaled is
// asked. Nobody listens on the socket that is named, so a command line without a mistake ends with
// exit code 3, and one that has a mistake must end with 2 and say which.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "scalectl/commands.h"
#include "scalectl/manual.h"

namespace {

using scalectl::Command;

constexpr int kOk = 0;
constexpr int kUsage = 2;
constexpr int kUnreachable = 3;

struct Said {
  int code = -1;
  std::string text;
};

Said run_line(const std::string& line) {
  FILE* pipe = popen((line + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return {};
  Said said;
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    said.text.append(buffer.data(), n);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) said.code = WEXITSTATUS(status);
  return said;
}

Said run(const std::vector<std::string>& words) {
  std::string line = SCALECTL;
  for (const auto& word : words) line += " '" + word + "'";
  return run_line(line);
}

// A machine that was exported.
std::string make_machine(const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/domain.xml") << "<domain><disk dev='/dev/mapper/scribe-x'/></domain>";
  std::ofstream(folder + "/disk-0.raw") << "disk";
  return folder;
}

std::string value_for(const std::string& name) {
  static const std::set<std::string> numbers{"SECONDS", "N",     "DISK", "EXTENT",
                                             "2|3",     "CHUNK", "NIC"};
  if (name.find('@') != std::string::npos) return "x1@y1";
  if (name == "FILE") return __FILE__;
  if (name == "FROM")
    return make_machine(testing::TempDir() + "machine." + std::to_string(::getpid()));
  if (name == "SIZE") return "1GiB";
  if (name == "TIME") return "2026-12-01T02:00:00";
  return numbers.contains(name) ? "7" : "x1";
}

/// The command with arguments that are right, and what it insists on.
std::vector<std::string> good(const Command& c) {
  std::vector<std::string> words{c.noun, c.verb};
  for (const auto& argument : c.arguments) words.push_back(value_for(argument));
  for (const auto& option : c.options)
    if (option.needed)
      words.push_back("--" + option.name +
                      (option.value.empty() ? "" : "=" + value_for(option.value)));
  words.insert(words.end(), {"--socket", "/nowhere/scaled.sock"});
  return words;
}

std::vector<std::string> with(std::vector<std::string> words,
                              const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

void expect_refused(const std::vector<std::string>& words, const std::string& because) {
  const Said said = run(words);
  std::string line;
  for (const auto& word : words) line += word + " ";
  EXPECT_EQ(said.code, kUsage) << line << ": " << said.text;
  EXPECT_NE(said.text.find(because), std::string::npos) << line << ": " << said.text;
  EXPECT_EQ(said.text.rfind("scalectl: ", 0), 0U) << line << ": " << said.text;
}

TEST(ScalectlCommandLine, WithoutAMistakeGetsAsFarAsTheSocket) {
  for (const Command& c : scalectl::commands()) {
    const Said said = run(good(c));
    EXPECT_EQ(said.code, kUnreachable) << c.noun << " " << c.verb << ": " << said.text;
    EXPECT_NE(said.text.find("is scaled running"), std::string::npos) << said.text;
  }
}

TEST(ScalectlCommandLine, MissingAndSurplusArgumentsAreRefused) {
  for (const Command& c : scalectl::commands()) {
    expect_refused(with(good(c), {"surplus"}), "expected: scalectl " + c.noun + " " + c.verb);
    if (c.arguments.empty()) continue;
    auto fewer = good(c);
    fewer.erase(fewer.begin() + 2);
    expect_refused(fewer, "expected: scalectl " + c.noun + " " + c.verb);
  }
}

TEST(ScalectlCommandLine, UnknownOptionsAreRefused) {
  for (const Command& c : scalectl::commands()) {
    expect_refused(with(good(c), {"--unknown"}), "--unknown");
    expect_refused(with(good(c), {"--unknown=5"}), "--unknown");
    expect_refused(with(good(c), {"-x"}), "-x");
    for (const auto& option : c.options)  // the beginning of one is none
      expect_refused(with(good(c), {"--" + option.name.substr(0, option.name.size() - 1)}), "--");
  }
}

TEST(ScalectlCommandLine, OptionsGivenTwiceOrWithoutTheirValueAreRefused) {
  for (const Command& c : scalectl::commands()) {
    expect_refused(with(good(c), {"--socket", "/other"}), "--socket");
    for (const auto& option : c.options) {
      const std::string name = "--" + option.name;
      if (option.value.empty()) {
        expect_refused(with(good(c), {name + "=5"}), name);
        continue;
      }
      const std::string value = value_for(option.value);
      expect_refused(with(good(c), {name, value, name, value}), name);
      expect_refused(with(good(c), {name}), name);
    }
  }
}

TEST(ScalectlCommandLine, WhatForgetsATpmOrAFirmwareWantsAYes) {
  const std::vector<std::string> edit{"vm", "edit", "mail"};
  expect_refused(with(edit, {"--tpm", "off"}), "say --yes");
  expect_refused(with(edit, {"--firmware", "uefi"}), "say --yes");
  EXPECT_EQ(run(with(edit, {"--tpm", "off", "--firmware", "bios", "--yes"})).code, kUnreachable);
  EXPECT_EQ(run(with(edit, {"--tpm", "on"})).code, kUnreachable);
}

TEST(ScalectlCommandLine, NumbersAndSizesThatAreNoneAreRefused) {
  const std::vector<std::string> none{"", "x", "-1", "1.5", "0x10", "7 ", "99999999999999999999"};
  size_t tried = 0;
  for (const Command& c : scalectl::commands()) {
    for (const auto& option : c.options) {
      if (option.name != "lease" && option.name != "hours" && option.name != "seconds") continue;
      for (const auto& value : none) {
        expect_refused(with(good(c), {"--" + option.name + "=" + value}), "--" + option.name);
        tried++;
      }
    }
    for (size_t i = 0; i < c.arguments.size(); i++) {
      if (c.arguments[i] != "SIZE") continue;
      for (const char* value : {"x", "1Q", "1.5G", "0", "99999999999999999999", "16777216T", "G"}) {
        auto words = good(c);
        words[2 + i] = value;
        expect_refused(words, value);
        tried++;
      }
    }
  }
  EXPECT_GE(tried, 3 * none.size() + 14);  // three options, two commands with a size
}

TEST(ScalectlCommandLine, WhatIsNoSnapshotIsRefused) {
  for (const char* word : {"mail", "@a", "mail@", "mail@a@b", "ma/il@a", "mail@a b"})
    for (const char* verb : {"create", "show", "diff", "space"})
      expect_refused({"snapshot", verb, word}, "");
  expect_refused({"snapshot", "create", ",@a"}, "a name is empty");
  expect_refused({"snapshot", "space", "mail@a,mail"}, "VSD@NAME");
}

TEST(ScalectlCommandLine, TimesAndDaysOfASchedulesThatAreNoneAreRefused) {
  for (const char* time :
       {"", "tomorrow", "2026-12-01", "2026-13-01T02:00:00", "2026-12-01T02:00:00Z"})
    expect_refused({"schedule", "set", "nightly", std::string("--starts=") + time}, "--starts");
  for (const char* days : {"", "x", "-1", "36501"})
    expect_refused({"schedule", "set", "nightly", std::string("--keep-days=") + days},
                   "--keep-days");
  expect_refused({"schedule", "create", "nightly", "--vms=mail"}, "--rule");
  expect_refused({"schedule", "set", "nightly", "--vms=mail,../x"}, "no name");
  expect_refused({"schedule", "set", "nightly", "--vsds=,mail"}, "a name is empty");
}

TEST(ScalectlCommandLine, UnknownNounsAndVerbsAreRefused) {
  expect_refused({"disk", "paint"}, "no command 'disk paint'");
  expect_refused({"paint", "disk"}, "no command 'paint disk'");
  expect_refused({"disk"}, "expected: scalectl NOUN VERB");
  expect_refused({"--json"}, "expected: scalectl NOUN VERB");
}

TEST(ScalectlCommandLine, ExamplesOfTheHelpAreRight) {
  const std::string place = testing::TempDir();
  std::ofstream(place + "/mail.xml") << "<domain/>";
  std::ofstream(place + "/debian-12.iso") << "CD001";
  make_machine(place + "/mail-monday");
  for (const Command& c : scalectl::commands()) {
    const std::string program = "scalectl";
    ASSERT_EQ(c.example.rfind(program + " ", 0), 0U) << c.example;
    const std::string line = SCALECTL + c.example.substr(program.size());
    std::string there = "cd ";
    there.append(place).append(" && ").append(line).append(" --socket /nowhere/scaled.sock");
    EXPECT_EQ(run_line(there).code, kUnreachable) << c.example;
  }
}

TEST(ScalectlHelp, NamesEveryOptionOfACommand) {
  const std::string manual = scalectl::manual();
  for (const Command& c : scalectl::commands()) {
    const Said said = run({c.noun, c.verb, "--help"});
    EXPECT_EQ(said.code, kOk);
    for (const auto& option : c.options)
      EXPECT_NE(said.text.find("--" + option.name), std::string::npos) << said.text;
    EXPECT_NE(said.text.find(c.help), std::string::npos) << said.text;
    EXPECT_NE(manual.find(".B " + c.noun + " "), std::string::npos) << c.noun;
  }
}

}  // namespace
