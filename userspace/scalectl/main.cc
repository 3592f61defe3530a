// SPDX-License-Identifier: GPL-2.0
#include <algorithm>
#include <boost/program_options.hpp>
#include <iostream>
#include <set>

#include "commands.h"
#include "http/http.h"
#include "manual.h"

namespace {

namespace json = boost::json;
namespace po = boost::program_options;
using scalectl::Command;

constexpr int kOk = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;
constexpr int kUnreachable = 3;
constexpr int kNotFound = 4;
constexpr int kConflict = 5;
constexpr int kDenied = 6;
constexpr int kNoQuorum = 7;
constexpr std::chrono::minutes kTimeout{5};
constexpr const char* kSocket = "/run/scaled/scaled.sock";

constexpr const char* kIntro =
    "scalectl - commands a cluster of scribe nodes, from any of them, as root\n\n";
constexpr const char* kOutro =
    "\nOptions of every command:\n"
    "  --json           print the API's answer\n"
    "  --socket PATH    where scaled listens; default /run/scaled/scaled.sock\n"
    "  --help           what a command takes\n"
    "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 scaled not reached, 4 not found,\n"
    "5 conflict, 6 denied, 7 no quorum or outcome unknown.\n";

std::string usage_of(const Command& command) {
  std::string out = command.noun + " " + command.verb;
  for (const auto& argument : command.arguments) out += " " + argument;
  return out;
}

// Help for all commands, those of one noun, or one command with its options.
int help(const std::string& noun, const std::string& verb) {
  size_t width = 0;
  for (const Command& c : scalectl::commands()) width = std::max(width, usage_of(c).size());
  const Command* only = nullptr;
  std::string lines;
  for (const Command& c : scalectl::commands()) {
    if ((!noun.empty() && c.noun != noun) || (!verb.empty() && c.verb != verb)) continue;
    const std::string usage = usage_of(c);
    lines += "  " + usage + std::string(width - usage.size() + 2, ' ') + c.help + "\n";
    only = &c;
  }
  if (only == nullptr) {
    std::cerr << "scalectl: no command '" << noun << (verb.empty() ? "" : " " + verb)
              << "'; see scalectl --help\n";
    return kUsage;
  }
  std::cout << (noun.empty() ? kIntro : "") << "Commands:\n" << lines;
  if (!verb.empty()) {
    if (!only->options.empty()) std::cout << "\nOptions:\n";
    for (const auto& option : only->options)
      std::cout << "  --" << option.name << (option.value.empty() ? "" : " " + option.value)
                << "   " << option.help << "\n";
    std::cout << "\nExample: " << only->example << "\n";
  }
  std::cout << kOutro;
  return kOk;
}

// The words that may follow, for bash: scalectl complete WORD...
int complete(const std::vector<std::string>& words) {
  std::set<std::string> out;
  for (const Command& c : scalectl::commands()) {
    if (words.size() < 2) out.insert(c.noun);
    if (words.size() == 2 && c.noun == words[0]) out.insert(c.verb);
    if (words.size() > 2 && c.noun == words[0] && c.verb == words[1])
      for (const auto& option : c.options) out.insert("--" + option.name);
  }
  if (words.size() > 2) out.insert({"--json", "--help"});
  for (const auto& word : out) std::cout << word << "\n";
  return kOk;
}

int code_to_exit(const std::string& code) {
  if (code == "not_found") return kNotFound;
  if (code == "conflict" || code == "stale") return kConflict;
  if (code == "denied") return kDenied;
  if (code == "unknown") return kNoQuorum;
  return code == "invalid" ? kUsage : kFailed;
}

int run(const Command& command, const scalectl::Words& words) {
  http::Target target;
  target.local_path = words.has("socket") ? words.options.at("socket") : kSocket;
  http::Client client(target);
  const scalectl::Ask ask = [&](const std::string& method, const std::string& path,
                                const std::string& body) {
    auto response = client.call(method, path, body, kTimeout);
    if (!response) throw scalectl::Unreachable{response.error().text};
    return scalectl::Answer{std::move(response->body),
                            response->content_type == "application/json"};
  };
  json::object answer;
  if (command.transfer) {
    answer = command.transfer(words, ask);
  } else {
    const scalectl::Call call = command.call(words);
    answer =
        json::parse(
            ask(call.method, call.path, call.body.empty() ? "" : json::serialize(call.body)).body)
            .as_object();
  }
  if (words.has("json")) std::cout << json::serialize(answer) << "\n";
  if (const json::value* error = answer.if_contains("error")) {
    const std::string text = json::value_to<std::string>(error->as_object().at("text"));
    if (!words.has("json")) std::cerr << "scalectl: " << text << "\n";
    return code_to_exit(json::value_to<std::string>(error->as_object().at("code")));
  }
  if (!words.has("json")) std::cout << command.show(answer);
  return !command.good || command.good(answer) ? kOk : kFailed;
}

int parse_and_run(const Command& command, const std::vector<std::string>& rest) {
  po::options_description options;
  options.add_options()("help,h", "")("json", "")("socket", po::value<std::string>());
  options.add_options()("arguments", po::value<std::vector<std::string>>());
  for (const auto& option : command.options) {
    if (option.value.empty())
      options.add_options()(option.name.c_str(), "");
    else
      options.add_options()(option.name.c_str(), po::value<std::string>());
  }
  po::positional_options_description positional;
  positional.add("arguments", -1);
  po::variables_map values;
  // No guessing: --nod must not work today and be something else tomorrow.
  const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
  po::store(
      po::command_line_parser(rest).options(options).positional(positional).style(style).run(),
      values);
  scalectl::Words words;
  for (const auto& [name, value] : values) {
    if (name == "arguments")
      words.arguments = value.as<std::vector<std::string>>();
    else
      words.options[name] =
          value.value().type() == typeid(std::string) ? value.as<std::string>() : "";
  }
  if (words.has("help")) return help(command.noun, command.verb);
  if (words.arguments.size() != command.arguments.size())
    throw scalectl::UsageError{"expected: scalectl " + usage_of(command)};
  return run(command, words);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && words[0] == "complete") return complete({words.begin() + 1, words.end()});
  // For the package's manual page.
  if (words.size() == 1 && words[0] == "manual") {
    std::cout << scalectl::manual();
    return kOk;
  }
  const auto first_option = std::find_if(words.begin(), words.end(),
                                         [](const std::string& w) { return w.starts_with("-"); });
  const auto leading = first_option - words.begin();
  if (words.empty() || leading < 2) {
    const bool asked = words.empty() || *words.rbegin() == "--help" || *words.rbegin() == "-h";
    if (asked) return help(leading > 0 ? words[0] : "", "");
    std::cerr << "scalectl: expected: scalectl NOUN VERB ...; see scalectl --help\n";
    return kUsage;
  }
  try {
    for (const Command& command : scalectl::commands())
      if (command.noun == words[0] && command.verb == words[1])
        return parse_and_run(command, {words.begin() + 2, words.end()});
    std::cerr << "scalectl: no command '" << words[0] << " " << words[1]
              << "'; see scalectl --help\n";
    return kUsage;
  } catch (const scalectl::Unreachable& err) {
    std::cerr << "scalectl: " << err.text << "; is scaled running, and are you root?\n";
    return kUnreachable;
  } catch (const scalectl::UsageError& err) {
    std::cerr << "scalectl: " << err.text << "\n";
  } catch (const po::error& err) {
    std::cerr << "scalectl: " << err.what() << "; see scalectl " << words[0] << " " << words[1]
              << " --help\n";
  } catch (const std::exception& err) {
    std::cerr << "scalectl: no sense in scaled's answer: " << err.what() << "\n";
    return kFailed;
  }
  return kUsage;
}
