// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "meta/cluster.h"

namespace scaled {

class Call;
class Member;

/// What this node does about media: takes pieces of uploads, seals and checks what is whole, makes
/// disks of images. Where a node that did it is gone, the leader goes on. Checks and disks are made
/// one after the other.
class Media {
 public:
  explicit Media(Member& member);
  ~Media();
  Media(const Media&) = delete;
  Media& operator=(const Media&) = delete;

  /// A piece of an upload, from the API. It is on stable storage, on two nodes, when this ends
  /// well. One that has come before is no error.
  core::Result<void> put(Call& call, const std::string& name, uint64_t offset,
                         const std::string& piece);
  /// Of a medium that is ready, so many bytes; fewer at its end.
  core::Result<std::string> get(Call& call, const std::string& name, uint64_t offset,
                                uint64_t bytes);

 private:
  using Clock = std::chrono::steady_clock;
  using Said = core::Result<boost::json::object>;

  void keep(const std::stop_token& stop);
  void work(const std::stop_token& stop);
  bool open(std::unique_ptr<meta::Database>& database) const;
  bool is_mine(core::NodeId node, uint64_t life) const;
  Said propose(boost::json::object body);
  Said propose_of(const char* op, const meta::Medium& medium);
  void seal(meta::Cluster& cluster, const meta::Medium& medium);
  void lead(meta::Cluster& cluster, const std::vector<meta::Medium>& media,
            const std::vector<meta::Filling>& fillings);
  void check(meta::Cluster& cluster, const meta::Medium& medium, const std::stop_token& stop);
  void make(meta::Cluster& cluster, const meta::Medium& medium, const meta::Medium& source,
            const std::stop_token& stop);
  /// Tells how far a long job of this node is, now and then; false: it is not to go on.
  std::function<bool(uint64_t)> teller(const std::stop_token& stop, boost::json::object progress);
  void fill(meta::Cluster& cluster, const meta::Filling& filling, const meta::Medium& medium,
            const std::stop_token& stop);
  void note(const std::string& job, const std::string& problem);
  /// The path of the device by which this node reads a medium, where it is open.
  std::optional<std::string> view_path(meta::Cluster& cluster, const meta::Medium& medium) const;
  core::Result<void> own(Call& call, const meta::Medium& medium);
  std::shared_ptr<std::mutex> lock_of(uint64_t medium);

  Member& member_;
  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<std::mutex>> locks_;  // one piece of a medium at a time
  std::set<std::string> noted_;                            // jobs that did not go well
  Clock::time_point not_before_;                           // when they are tried again
  Clock::time_point tidied_;
  std::jthread keeper_;
  std::jthread worker_;  // last
};

}  // namespace scaled
