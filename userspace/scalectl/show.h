// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <string>

namespace scalectl {

namespace json = boost::json;

/// Answers of the API as text for people; Documentation/openapi.json has their fields.
std::string nothing(const json::object& answer);
std::string show_cluster(const json::object& answer);
std::string show_nodes(const json::object& answer);
std::string show_audit(const json::object& answer);
std::string show_disks(const json::object& answer);
std::string show_candidates(const json::object& answer);
std::string show_tasks(const json::object& answer);
std::string show_task(const json::object& answer);
std::string show_deletion(const json::object& answer);
std::string show_added_disk(const json::object& answer);
std::string show_vsds(const json::object& answer);
std::string show_vsd(const json::object& answer);
std::string show_clone(const json::object& answer);
std::string show_schedule(const json::object& answer);
std::string show_schedules(const json::object& answer);
std::string show_snapshots(const json::object& answer);
std::string show_opened_snapshot(const json::object& answer);
std::string show_taken(const json::object& answer);
std::string show_snapshot(const json::object& answer);
std::string show_reverted(const json::object& answer);
std::string show_diff(const json::object& answer);
std::string show_weight(const json::object& answer);
std::string show_begun(const json::object& answer);
std::string show_media(const json::object& answer);
std::string show_medium(const json::object& answer);
std::string show_vm_stats(const json::object& answer);
std::string show_events(const json::object& answer);
std::string show_drain(const json::object& answer);
std::string show_vm(const json::object& answer);
std::string show_vm_snapshots(const json::object& answer);
std::string show_vms(const json::object& answer);
std::string show_pool(const json::object& answer);
std::string show_token(const json::object& answer);

/// Whether an answer is good news.
bool nothing_differs(const json::object& answer);
bool nothing_damaged(const json::object& answer);

}  // namespace scalectl
