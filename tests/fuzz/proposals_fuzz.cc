// SPDX-License-Identifier: GPL-2.0
// What other nodes and clients send: any JSON is answered, once, and leaves a database that others
// can follow and whose reference counts are exact.
#include <memory>
#include <vector>

#include "fuzz.h"
#include "meta/cluster.h"
#include "meta/map.h"
#include "policy/proposals.h"

namespace {

namespace json = boost::json;

// A cluster with what proposals may be about, made once; each input starts from a copy.
const std::vector<json::object>& beginning() {
  static const std::vector<json::object> bodies = [] {
    std::vector<json::object> out;
    for (
        const char* text :
        {R"({"op":"cluster_create","cluster":"c","uuid":"u","name":"n1","lan":"a","backplane":"b"})",
         R"({"op":"node_up","node":1,"life":5,"version":"1"})",
         R"({"op":"disk_add","node":1,"uuid":"d1","serial":"s1","tier":"hdd","slots":40})",
         R"({"op":"disk_add","node":1,"uuid":"d2","serial":"s2","tier":"ssd","slots":40})",
         R"({"op":"disk_ready","disk":1})", R"({"op":"disk_ready","disk":2})",
         R"({"op":"disk_up","disk":1,"life":7,"slots":40})",
         R"({"op":"disk_up","disk":2,"life":8,"slots":40})",
         R"({"op":"vsd_create","name":"v","sectors":4096,"replicas":2})",
         R"({"op":"lease_take","vsd":1,"node":1,"life":5})",
         R"({"op":"reserve","node":1,"life":5,"count":4})"})
      out.push_back(json::parse(text).as_object());
    return out;
  }();
  return bodies;
}

class Leader {
 public:
  Leader() : decisions_(*database_), index_(1) {}

  policy::Answer decide(const policy::Proposal& proposal) {
    std::vector<policy::Answer> answers;
    auto patch = decisions_.prepare({&proposal, 1}, index_, 1000, answers);
    EXPECT(patch && answers.size() == 1);
    const meta::Position at{index_, index_ * 31};
    EXPECT(database_->commit(at));
    decisions_.committed();
    EXPECT(follower_->apply(at, *patch));
    index_++;
    return answers[0];
  }
  void check() {
    EXPECT(database_->digest().value() == follower_->digest().value());
    auto wrong = meta::Map(*database_).verify();
    EXPECT(wrong && wrong->empty());
  }

 private:
  std::unique_ptr<meta::Database> database_ = meta::Database::open(":memory:").value();
  std::unique_ptr<meta::Database> follower_ = meta::Database::open(":memory:").value();
  policy::Proposals decisions_;
  uint64_t index_;
};

}  // namespace

// Lines of JSON, each the body of a proposal.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Leader leader;
  uint64_t sequence = 1;
  for (const json::object& body : beginning())
    EXPECT(leader.decide({{1}, 9, sequence++, 0, body}).contains("ok"));
  std::string_view text(reinterpret_cast<const char*>(data), size);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    boost::system::error_code err;
    const json::value value = json::parse(json::string_view(line.data(), line.size()), err);
    if (err || !value.is_object()) continue;
    const policy::Proposal proposal{{1}, 9, sequence++, 0, value.as_object()};
    const auto answer = leader.decide(proposal);
    EXPECT(answer.contains("ok") != answer.contains("error"));
    EXPECT(leader.decide(proposal) == answer);
  }
  leader.check();
  return 0;
}
