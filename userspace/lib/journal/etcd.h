// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "http/http.h"

namespace journal {

/// A condition of a transaction: a key's creation or modification revision, or its absence.
struct Compare {
  enum class What { absent, created_at, modified_at };
  std::string key;
  What what = What::absent;
  uint64_t revision = 0;
};

struct KeyValue {
  std::string key;
  std::string value;
  uint64_t created_at = 0;
  uint64_t modified_at = 0;
};

struct TxnResult {
  bool succeeded = false;
  uint64_t revision = 0;
  std::vector<KeyValue> found;  ///< of the ranges on either branch
};

/// etcd v3 through its JSON gateway: the few calls that are needed, on connections that are kept.
/// Each is answered by a quorum, unless it says otherwise, or fails with Code::unknown;
/// Code::invalid for what etcd will never take. One thread uses an object.
class Etcd {
 public:
  /// Where members may listen; asked again whenever a connection is lost.
  using Endpoints = std::function<std::vector<http::Target>()>;

  Etcd(Endpoints endpoints, std::chrono::milliseconds timeout)
      : endpoints_(std::move(endpoints)), timeout_(timeout) {}

  /// `lagging`: what one member has applied is enough. It costs a tenth, and no other member.
  core::Result<std::vector<KeyValue>> range(const std::string& first, const std::string& end,
                                            size_t limit, bool lagging = false);
  /// If all conditions hold, puts key (with a lease, if any), else reads `otherwise`.
  core::Result<TxnResult> put_if(const std::vector<Compare>& conditions, const std::string& key,
                                 const std::string& value, uint64_t lease,
                                 const std::vector<std::string>& otherwise);
  core::Result<void> remove_range(const std::string& first, const std::string& end);
  core::Result<uint64_t> grant_lease(std::chrono::seconds ttl);
  /// Code::stale where the lease is over.
  core::Result<void> keep_lease(uint64_t lease);
  /// With its keys.
  core::Result<void> end_lease(uint64_t lease);

  struct Member {
    uint64_t id = 0;
    std::string name;
    std::string peer_url;
    bool learner = false;
  };
  core::Result<std::vector<Member>> members();
  core::Result<Member> add_learner(const std::string& peer_url);
  core::Result<void> promote(uint64_t member);
  core::Result<void> remove_member(uint64_t member);

 private:
  core::Result<boost::json::object> call(const std::string& path, const boost::json::object& body);

  const Endpoints endpoints_;
  const std::chrono::milliseconds timeout_;
  std::unique_ptr<http::Client> client_;
  size_t next_ = 0;
};

}  // namespace journal
