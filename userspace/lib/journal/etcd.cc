// SPDX-License-Identifier: GPL-2.0
#include "journal/etcd.h"

#include <openssl/evp.h>

namespace journal {

namespace json = boost::json;
using core::Code;
using core::Error;
using core::Result;

namespace {

std::string encode(const std::string& data) {
  std::string out((data.size() + 2) / 3 * 4 + 1, '\0');
  out.resize(static_cast<size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(out.data()),
      reinterpret_cast<const unsigned char*>(data.data()), static_cast<int>(data.size()))));
  return out;
}

std::string decode(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) return {};
  const json::string& text = value->as_string();
  std::string out(text.size() / 4 * 3, '\0');
  const int bytes = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                    reinterpret_cast<const unsigned char*>(text.data()),
                                    static_cast<int>(text.size()));
  // OpenSSL counts what is padding as zeros.
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  out.resize(bytes < 0 ? 0 : static_cast<size_t>(bytes) - padding);
  return out;
}

// The gateway writes 64-bit numbers as texts, and leaves zeros out.
uint64_t number(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) return 0;
  return value->is_string() ? std::stoull(std::string(value->as_string()))
                            : value->to_number<uint64_t>();
}

bool flag(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_bool() && value->as_bool();
}

json::object compare_json(const Compare& compare) {
  json::object out{{"key", encode(compare.key)}, {"result", "EQUAL"}};
  switch (compare.what) {
    case Compare::What::absent:
      out["target"] = "VERSION";
      out["version"] = "0";
      break;
    case Compare::What::created_at:
      out["target"] = "CREATE";
      out["create_revision"] = std::to_string(compare.revision);
      break;
    case Compare::What::modified_at:
      out["target"] = "MOD";
      out["mod_revision"] = std::to_string(compare.revision);
      break;
  }
  return out;
}

void take_found(const json::object& range, std::vector<KeyValue>& out) {
  const json::value* kvs = range.if_contains("kvs");
  if (kvs == nullptr) return;
  for (const json::value& value : kvs->as_array()) {
    const json::object& kv = value.as_object();
    out.push_back({decode(kv, "key"), decode(kv, "value"), number(kv, "create_revision"),
                   number(kv, "mod_revision")});
  }
}

Etcd::Member member_of(const json::object& object) {
  Etcd::Member out{number(object, "ID"), "", "", flag(object, "isLearner")};
  if (const json::value* name = object.if_contains("name"))
    out.name = std::string(name->as_string());
  if (const json::value* urls = object.if_contains("peerURLs"))
    if (!urls->as_array().empty()) out.peer_url = std::string(urls->as_array().front().as_string());
  return out;
}

}  // namespace

Result<json::object> Etcd::call(const std::string& path, const json::object& body) {
  if (!client_) {
    const std::vector<http::Target> targets = endpoints_();
    if (targets.empty()) return Error{Code::unknown, "etcd: no member is known"};
    client_ = std::make_unique<http::Client>(targets[next_++ % targets.size()]);
  }
  auto response = client_->call("POST", path, json::serialize(body), timeout_);
  if (!response) {
    client_.reset();  // the next call tries another member
    return Error{Code::unknown, "etcd: " + response.error().text};
  }
  boost::system::error_code err;
  json::value parsed = json::parse(response->body, err);
  if (err || !parsed.is_object()) {
    client_.reset();
    return Error{Code::unknown, "etcd: no sense in the answer to " + path};
  }
  if (response->status / 100 != 2) {
    const json::value* message = parsed.as_object().if_contains("error");
    const std::string text = message != nullptr && message->is_string()
                                 ? std::string(message->as_string())
                                 : "status " + std::to_string(response->status);
    // A member that lost its leader, or is no member any more: another may do better.
    client_.reset();
    return Error{response->status == 400 ? Code::invalid : Code::unknown, "etcd: " + text};
  }
  return std::move(parsed.as_object());
}

Result<std::vector<KeyValue>> Etcd::range(const std::string& first, const std::string& end,
                                          size_t limit, bool lagging) {
  auto answer = call("/v3/kv/range", {{"key", encode(first)},
                                      {"range_end", encode(end)},
                                      {"limit", limit},
                                      {"serializable", lagging},
                                      {"sort_order", "ASCEND"},
                                      {"sort_target", "KEY"}});
  if (!answer) return answer.error();
  std::vector<KeyValue> out;
  take_found(*answer, out);
  return out;
}

Result<TxnResult> Etcd::put_if(const std::vector<Compare>& conditions, const std::string& key,
                               const std::string& value, uint64_t lease,
                               const std::vector<std::string>& otherwise) {
  json::array compares;
  for (const Compare& condition : conditions) compares.push_back(compare_json(condition));
  json::array failure;
  for (const std::string& other : otherwise)
    failure.push_back(json::object{{"request_range", json::object{{"key", encode(other)}}}});
  json::array success;
  success.push_back(json::object{{"request_put", json::object{{"key", encode(key)},
                                                              {"value", encode(value)},
                                                              {"lease", std::to_string(lease)}}}});
  auto answer = call("/v3/kv/txn", {{"compare", std::move(compares)},
                                    {"success", std::move(success)},
                                    {"failure", std::move(failure)}});
  if (!answer) return answer.error();
  TxnResult out{flag(*answer, "succeeded"), 0, {}};
  if (const json::value* header = answer->if_contains("header"))
    out.revision = number(header->as_object(), "revision");
  if (const json::value* responses = answer->if_contains("responses"))
    for (const json::value& response : responses->as_array())
      if (const json::value* range = response.as_object().if_contains("response_range"))
        take_found(range->as_object(), out.found);
  return out;
}

Result<void> Etcd::remove_range(const std::string& first, const std::string& end) {
  auto answer = call("/v3/kv/deleterange", {{"key", encode(first)}, {"range_end", encode(end)}});
  if (!answer) return answer.error();
  return {};
}

Result<uint64_t> Etcd::grant_lease(std::chrono::seconds ttl) {
  auto answer = call("/v3/lease/grant", {{"TTL", std::to_string(ttl.count())}});
  if (!answer) return answer.error();
  return number(*answer, "ID");
}

Result<void> Etcd::keep_lease(uint64_t lease) {
  auto answer = call("/v3/lease/keepalive", {{"ID", std::to_string(lease)}});
  if (!answer) return answer.error();
  const json::value* result = answer->if_contains("result");
  if (result == nullptr || number(result->as_object(), "TTL") == 0)
    return Error{Code::stale, "etcd: the lease is over"};
  return {};
}

Result<void> Etcd::end_lease(uint64_t lease) {
  auto answer = call("/v3/lease/revoke", {{"ID", std::to_string(lease)}});
  if (!answer) return answer.error();
  return {};
}

Result<std::vector<Etcd::Member>> Etcd::members() {
  auto answer = call("/v3/cluster/member/list", {});
  if (!answer) return answer.error();
  std::vector<Member> out;
  if (const json::value* list = answer->if_contains("members"))
    for (const json::value& value : list->as_array()) out.push_back(member_of(value.as_object()));
  return out;
}

Result<Etcd::Member> Etcd::add_learner(const std::string& peer_url) {
  auto answer =
      call("/v3/cluster/member/add", {{"peerURLs", json::array{peer_url}}, {"isLearner", true}});
  if (!answer) return answer.error();
  return member_of(answer->at("member").as_object());
}

Result<void> Etcd::promote(uint64_t member) {
  auto answer = call("/v3/cluster/member/promote", {{"ID", std::to_string(member)}});
  if (!answer) return answer.error();
  return {};
}

Result<void> Etcd::remove_member(uint64_t member) {
  auto answer = call("/v3/cluster/member/remove", {{"ID", std::to_string(member)}});
  if (!answer) return answer.error();
  return {};
}

}  // namespace journal
