// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <span>
#include <vector>

#include "core/id.h"
#include "meta/database.h"
#include "policy/slots.h"

namespace policy {

/// A wish of a node, decided by the leader. `session` is drawn anew by each run of a daemon,
/// `sequence` counts up in it; repeating both asks for the same answer and changes nothing twice.
struct Proposal {
  core::NodeId node;
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint64_t done = 0;  ///< answers up to here have arrived and need not be kept
  boost::json::object body;
};

/// {"ok": {...}} or {"error": {"code": "...", "text": "..."}}.
using Answer = boost::json::object;

[[nodiscard]] boost::json::object to_json(const Proposal& proposal);
[[nodiscard]] core::Result<Proposal> proposal_from_json(const boost::json::value& value);
[[nodiscard]] Answer to_answer(const core::Error& error);
/// The "ok" part, or the error again.
[[nodiscard]] core::Result<boost::json::object> from_answer(const Answer& answer);
[[nodiscard]] const char* code_name(core::Code code);
[[nodiscard]] core::Code code_from_name(std::string_view name);

/// The leader's decisions: what each proposal does to the database. body.op names it:
///
///   cluster_create cluster uuid name lan backplane     node_add name lan backplane token
///   node_up node life version                          node_down node life
///   node_leave node leaving                            node_gone node
///   node_forget node
///   fenced node life witness                           seen node index
///   disk_add node uuid serial tier slots               disk_ready disk
///   disk_up disk life slots                            disk_failed disk life
///   disk_absent disk life                              disk_lost disk
///   disk_leave disk leaving                            disk_remove disk
///   disk_closed disk
///   set name value
///   token_add hash expires                             vsd_create name sectors replicas
///   vsd_delete vsd                                     vsd_resize vsd sectors
///   vsd_copies vsd replicas                            widen
///   open vsd node                                      opened vsd node state error
///   close vsd node                                     closed vsd node
///   lease_take vsd node life [free]                    lease_drop vsd node epoch clean
///   intent vsd node life epoch add drop
///   snapshot name vsds ({vsd [node life epoch]}...)    snapshot_delete snapshot
///     [clone], instead of name, of one VSD              vsd_clone snapshot name
///   vsd_revert vsd snapshot keep
///   snapshot_open snapshot node                        snapshot_close snapshot node
///   place vsd node life epoch extents                  moved vsd node life epoch items
///   unreserve node life extents
///   gathered vsd node life epoch extent pieces ([row chunk start len off from to]...) sources
///   reserve node life count [copies]                   commit vsd node life epoch ops stales
///   vm_cdrom_add vm medium                             vm_cdrom_remove vm slot
///   vm_cdrom_change vm slot medium                     vm_cdrom_has vm node life run slot medium
///   medium_create name bytes sha256                    medium_take medium node life
///   medium_make name snapshot format drop node life    medium_made medium node life bytes problem
///   medium_received medium node life offset bytes      medium_sealed medium node life
///   medium_progress medium node life done              medium_delete medium
///   medium_checked medium node life sha256 format disk_bytes problem
///   medium_read medium node seconds                    media_tidy
///   vsd_fill medium name replicas node life            vsd_fill_cancel vsd
///   filling_take vsd node life                         filling_progress vsd node life done
///   filled vsd node life problem
///   rebalance mode                                     rebalance_some
///   collect                                            reap
///   audit                                              verify
///   verified error                                     repair extent disk
///   scrubbed vsd node life epoch began next end wrong damaged good
///
/// It is a function of the database, the proposals, the index and the time; Slots only saves
/// reading.
class Proposals {
 public:
  explicit Proposals(meta::Database& database) : database_(database) {}

  /// Runs proposals in one transaction that stays open; one that fails changes nothing and the
  /// others go on. answers[i] answers proposals[i]. `now` is in seconds since 1970.
  core::Result<meta::Patch> prepare(std::span<const Proposal> proposals, uint64_t index,
                                    int64_t now, std::vector<Answer>& answers);
  /// The transaction became an entry.
  void committed();
  /// It did not, or another node led meanwhile.
  void forget();

 private:
  meta::Database& database_;
  Slots slots_;
  std::vector<std::pair<core::DiskId, uint32_t>> freed_;
};

}  // namespace policy
