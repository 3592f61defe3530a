// SPDX-License-Identifier: GPL-2.0
#include "policy/proposals.h"

#include <array>
#include <string_view>
#include <unordered_map>

#include "policy/events.h"
#include "policy/handlers.h"

namespace policy {

namespace {

constexpr std::array<std::pair<Code, const char*>, 8> kCodes = {{{Code::invalid, "invalid"},
                                                                 {Code::not_found, "not_found"},
                                                                 {Code::conflict, "conflict"},
                                                                 {Code::stale, "stale"},
                                                                 {Code::no_space, "no_space"},
                                                                 {Code::corrupt, "corrupt"},
                                                                 {Code::storage, "storage"},
                                                                 {Code::unknown, "unknown"}}};

using Handler = Outcome (*)(Context&, const json::object&);

const std::unordered_map<std::string_view, Handler>& handlers() {
  static const std::unordered_map<std::string_view, Handler> table = {
      {"cluster_create", cluster_create},
      {"node_add", node_add},
      {"node_up", node_up},
      {"node_down", node_down},
      {"node_leave", node_leave},
      {"node_gone", node_gone},
      {"node_forget", node_forget},
      {"fenced", fenced},
      {"seen", seen},
      {"disk_add", disk_add},
      {"disk_ready", disk_ready},
      {"disk_up", disk_up},
      {"disk_failed", disk_failed},
      {"disk_absent", disk_absent},
      {"disk_lost", disk_lost},
      {"disk_leave", disk_leave},
      {"disk_remove", disk_remove},
      {"disk_closed", disk_closed},
      {"set", set},
      {"token_add", token_add},
      {"vsd_create", vsd_create},
      {"vsd_delete", vsd_delete},
      {"vsd_resize", vsd_resize},
      {"vsd_copies", vsd_copies},
      {"widen", widen},
      {"open", open},
      {"opened", opened},
      {"close", close},
      {"closed", closed},
      {"lease_take", lease_take},
      {"lease_drop", lease_drop},
      {"schedule_create", schedule_create},
      {"schedule_set", schedule_set},
      {"schedule_delete", schedule_delete},
      {"snapshot", snapshot},
      {"snapshot_delete", snapshot_delete},
      {"vsd_clone", vsd_clone},
      {"snapshot_open", snapshot_open},
      {"snapshot_close", snapshot_close},
      {"vsd_revert", vsd_revert},
      {"vm_create", vm_create},
      {"vm_edit", vm_edit},
      {"vm_delete", vm_delete},
      {"vm_start", vm_start},
      {"vm_want", vm_want},
      {"vm_state", vm_state},
      {"vm_ended", vm_ended},
      {"vm_recover", vm_recover},
      {"vm_migrate", vm_migrate},
      {"vm_moving", vm_moving},
      {"vm_moved", vm_moved},
      {"vm_stays", vm_stays},
      {"vm_migrate_cancel", vm_migrate_cancel},
      {"vm_paused_for", vm_paused_for},
      {"vm_disk_add", vm_disk_add},
      {"vm_disk_change", vm_disk_change},
      {"vm_disk_remove", vm_disk_remove},
      {"vm_disk_gone", vm_disk_gone},
      {"vm_cdrom_add", vm_cdrom_add},
      {"vm_cdrom_remove", vm_cdrom_remove},
      {"vm_cdrom_change", vm_cdrom_change},
      {"vm_cdrom_has", vm_cdrom_has},
      {"medium_create", medium_create},
      {"medium_make", medium_make},
      {"medium_made", medium_made},
      {"medium_take", medium_take},
      {"medium_received", medium_received},
      {"medium_sealed", medium_sealed},
      {"medium_progress", medium_progress},
      {"medium_checked", medium_checked},
      {"medium_delete", medium_delete},
      {"medium_read", medium_read},
      {"media_tidy", media_tidy},
      {"vsd_fill", vsd_fill},
      {"filling_take", filling_take},
      {"filling_progress", filling_progress},
      {"filled", filled},
      {"vsd_fill_cancel", vsd_fill_cancel},
      {"vm_nic_add", vm_nic_add},
      {"vm_nic_change", vm_nic_change},
      {"vm_nic_remove", vm_nic_remove},
      {"node_bond", node_bond},
      {"node_drain", node_drain},
      {"capacity", capacity},
      {"vm_snapshot_rested", vm_snapshot_rested},
      {"vm_snapshot_delete", vm_snapshot_delete},
      {"vm_revert", vm_revert},
      {"vm_clone", vm_clone},
      {"reserve", reserve},
      {"unreserve", unreserve},
      {"intent", intent},
      {"place", place},
      {"moved", moved},
      {"gathered", gathered},
      {"commit", commit},
      {"rebalance", rebalance},
      {"rebalance_some", rebalance_some},
      {"collect", collect},
      {"reap", reap},
      {"audit", audit},
      {"verify", verify},
      {"verified", verified},
      {"scrubbed", scrubbed},
      {"repair", repair},
  };
  return table;
}

Outcome execute(Context& c, const Proposal& proposal) {
  const json::object& body = proposal.body;
  const json::value* op = body.if_contains("op");
  if (op == nullptr || !op->is_string()) return Error{Code::invalid, "a proposal without an op"};
  const auto at = handlers().find(std::string_view(op->as_string()));
  if (at == handlers().end())
    return Error{Code::invalid,
                 "no proposal " + json::serialize(*op) + "; is another node of a newer version?"};
  try {
    const std::string object = event_object(c, body);
    Outcome done = at->second(c, body);
    if (done) note_event(c, proposal.node, body, object, *done);
    return done;
  } catch (const SQLite::Exception&) {
    throw;
  } catch (const std::exception& err) {
    return Error{Code::invalid, std::string(at->first) + ": " + err.what()};
  }
}

constexpr uint64_t kSessionOver = INT64_MAX;

// Notes that answers up to `done` arrived; gives how far that is, kSessionOver where a later run of
// the proposer's daemon has spoken. Row 0 of a session holds it, and stays when the session is
// over: a request that was lost on its way for long must not be executed then.
uint64_t note_done(Context& c, const Proposal& p) {
  meta::Query row(c.database, "SELECT answer FROM answer WHERE session = ? AND sequence = 0");
  row.bind(1, s64(p.session));
  if (!row.executeStep()) {
    run(c, "DELETE FROM answer WHERE node = ? AND sequence > 0", s64(p.node.value));
    run(c, "UPDATE answer SET answer = ? WHERE node = ?", std::to_string(kSessionOver),
        s64(p.node.value));
    run(c, "INSERT INTO answer VALUES(?, 0, ?, ?)", s64(p.session), s64(p.node.value),
        std::to_string(p.done));
    return p.done;
  }
  const uint64_t known = std::stoull(row.getColumn(0).getString());
  row.reset();
  if (p.done <= known) return known;
  run(c, "UPDATE answer SET answer = ? WHERE session = ? AND sequence = 0", std::to_string(p.done),
      s64(p.session));
  run(c, "DELETE FROM answer WHERE session = ? AND sequence BETWEEN 1 AND ?", s64(p.session),
      s64(p.done));
  return p.done;
}

// One proposal in a savepoint. A database error rolls back to it as well, so that one request that
// no constraint lets in does not hold up the others.
Answer answer_one(Context& c, const Proposal& proposal) {
  if (const uint64_t done = note_done(c, proposal); proposal.sequence <= done)
    return to_answer({Code::unknown, done == kSessionOver
                                         ? "a later run of this node's daemon has spoken"
                                         : "the proposal was given up before it arrived"});
  meta::Query known(c.database, "SELECT answer FROM answer WHERE session = ? AND sequence = ?");
  SQLite::bind(*known, s64(proposal.session), s64(proposal.sequence));
  if (known.executeStep()) return json::parse(known.getColumn(0).getString()).as_object();
  known.reset();
  c.sql.exec("SAVEPOINT proposal");
  const size_t freed = c.freed.size();
  Answer answer;
  try {
    Outcome done = execute(c, proposal);
    answer = done ? Answer{{"ok", std::move(*done)}} : to_answer(done.error());
  } catch (const SQLite::Exception& err) {
    if (meta::damaged(err)) throw;  // nothing that this node decides is worth anything
    answer = to_answer({Code::storage, std::string("metadata database: ") + err.what()});
  }
  if (!answer.contains("ok")) {
    c.sql.exec("ROLLBACK TO proposal");
    c.freed.resize(freed);
    c.slots.forget();
  }
  c.sql.exec("RELEASE proposal");
  run(c, "INSERT INTO answer VALUES(?, ?, ?, ?)", s64(proposal.session), s64(proposal.sequence),
      s64(proposal.node.value), json::serialize(answer));
  return answer;
}

}  // namespace

const char* code_name(Code code) {
  for (const auto& [value, name] : kCodes)
    if (value == code) return name;
  return "unknown";
}

Code code_from_name(std::string_view name) {
  for (const auto& [value, known] : kCodes)
    if (name == known) return value;
  return Code::unknown;
}

json::object to_json(const Proposal& p) {
  return {{"node", p.node.value},
          {"session", p.session},
          {"sequence", p.sequence},
          {"done", p.done},
          {"body", p.body}};
}

Result<Proposal> proposal_from_json(const json::value& value) {
  try {
    const json::object& o = value.as_object();
    return Proposal{{number(o, "node")},
                    number(o, "session"),
                    number(o, "sequence"),
                    number(o, "done"),
                    o.at("body").as_object()};
  } catch (const std::exception& err) {
    return Error{Code::invalid, std::string("no proposal: ") + err.what()};
  }
}

Answer to_answer(const Error& error) {
  return {{"error", {{"code", code_name(error.code)}, {"text", error.text}}}};
}

Outcome from_answer(const Answer& answer) {
  try {
    if (const json::value* ok = answer.if_contains("ok")) return ok->as_object();
    const json::object& error = answer.at("error").as_object();
    return Error{code_from_name(std::string_view(error.at("code").as_string())),
                 text(error, "text")};
  } catch (const std::exception& err) {
    return Error{Code::unknown, std::string("an answer that makes no sense: ") + err.what()};
  }
}

Result<meta::Patch> Proposals::prepare(std::span<const Proposal> proposals, uint64_t index,
                                       int64_t now, std::vector<Answer>& answers) {
  answers.clear();
  freed_.clear();
  auto patch = database_.prepare([&]() -> Result<void> {
    Context context{database_, slots_, freed_, index, now};
    for (const Proposal& proposal : proposals) answers.push_back(answer_one(context, proposal));
    return {};
  });
  if (!patch) forget();
  return patch;
}

void Proposals::committed() {
  for (const auto& [disk, slot] : freed_) slots_.give_back(disk, slot);
  freed_.clear();
}

void Proposals::forget() {
  slots_.forget();
  freed_.clear();
}

}  // namespace policy
