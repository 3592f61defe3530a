// SPDX-License-Identifier: GPL-2.0
// Comparing copies, and what is done about those that differ.
#include <set>

#include "policy/handlers.h"

namespace policy {

namespace {

// What is gone is not damaged any more.
void forget_healed(Context& c) {
  run(c, "DELETE FROM damage WHERE extent NOT IN (SELECT id FROM extent)");
}

}  // namespace

Outcome verify(Context& c, const json::object&) {
  return json::object{{"task", c.tasks.begin("pool verify", 0, "pool", 0)}};
}

Outcome verified(Context& c, const json::object& args) {
  c.tasks.end("pool verify", 0, 0, text(args, "error"));
  return json::object{};
}

Outcome scrubbed(Context& c, const json::object& args) {
  const auto vsd = leased_vsd(c, args);
  if (!vsd) return vsd.error();
  const auto homes = places(c);
  if (!homes) return homes.error();
  const auto began = args.at("began").to_number<int64_t>();
  // A pass that began later, on another node, counts more.
  if (args.at("end").as_bool())
    run(c, "UPDATE scrub SET next = 0, done = max(done, ?) WHERE vsd = ? AND began <= ?", began,
        s64(vsd->id.value), began);
  else
    run(c, "UPDATE scrub SET next = ?, began = ? WHERE vsd = ? AND began <= ?",
        s64(number(args, "next")), began, s64(vsd->id.value), began);
  uint64_t marked = 0;
  std::set<uint64_t> refused;
  for (const json::value& value : args.at("wrong").as_array()) {
    const auto extent = value.as_array().at(0).to_number<uint64_t>();
    const DiskId disk{value.as_array().at(1).to_number<uint64_t>()};
    auto copies = c.cluster.copies({extent});
    if (!copies) return copies.error();
    std::erase_if(*copies, [&](const meta::CopyRow& copy) { return copy.disk == disk; });
    // Never the last that could be read.
    const DiskId other = chosen_copy(*copies, *homes);
    const auto home = homes->find(other);
    // What is shared everybody who leads there compares, for nobody writes to it.
    if ((!is_filled_by(c, extent, vsd->id) && !is_shared(c, extent)) || home == homes->end() ||
        (home->second.home != Home::good && home->second.home != Home::leaving)) {
      refused.insert(extent);
      continue;
    }
    marked += static_cast<uint64_t>(
        run(c, "UPDATE copy SET stale = ? WHERE extent = ? AND disk = ? AND stale = 0",
            s64(c.index), s64(extent), s64(disk.value)));
    note_relocated(c, extent);
  }
  for (const json::value& value : args.at("damaged").as_array())
    run(c, "INSERT OR IGNORE INTO damage VALUES(?, ?, ?, ?, 0)",
        s64(value.as_array().at(0).to_number<uint64_t>()), s64(vsd->id.value),
        s64(value.as_array().at(1).to_number<uint64_t>()), c.now);
  // What was chosen stays so until it can be read.
  for (const json::value& value : args.at("good").as_array())
    if (const auto extent = value.to_number<uint64_t>(); !refused.contains(extent))
      run(c, "DELETE FROM damage WHERE extent = ?", s64(extent));
  forget_healed(c);
  return json::object{{"marked", marked}};
}

Outcome repair(Context& c, const json::object& args) {
  forget_healed(c);
  const uint64_t extent = number(args, "extent");
  const uint64_t disk = number(args, "disk");
  if (ask(c, "SELECT count(*) FROM damage WHERE extent = ?", s64(extent)) == 0)
    return Error{Code::not_found, "extent " + std::to_string(extent) +
                                      " is not known to be damaged; see: scalectl pool status"};
  if (ask(c, "SELECT count(*) FROM copy WHERE extent = ? AND disk = ? AND stale = 0", s64(extent),
          s64(disk)) == 0)
    return Error{Code::invalid, "extent " + std::to_string(extent) +
                                    " has no current copy on disk " + std::to_string(disk)};
  run(c, "UPDATE damage SET keep = ? WHERE extent = ?", s64(disk), s64(extent));
  return json::object{};
}

}  // namespace policy
