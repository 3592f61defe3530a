// SPDX-License-Identifier: GPL-2.0
#include "meta/database.h"

#include <sqlite3.h>
#include <xxhash.h>

#include <array>

namespace meta {

namespace {

// Each has a primary key, because sessions skip tables without one; no triggers, cascades or
// autoincrement, because a follower applies rows and must not compute any.
constexpr std::array kReplicated = {
    R"(CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID)",
    R"(CREATE TABLE cluster(name TEXT PRIMARY KEY, uuid TEXT NOT NULL) WITHOUT ROWID)",
    R"(CREATE TABLE node(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, lan_addr TEXT NOT NULL,
         backplane_addr TEXT NOT NULL, state TEXT NOT NULL, life INTEGER NOT NULL,
         version TEXT NOT NULL, seen INTEGER NOT NULL, since INTEGER NOT NULL,
         leaving INTEGER NOT NULL, drain TEXT NOT NULL))",
    R"(CREATE TABLE disk(id INTEGER PRIMARY KEY, node INTEGER NOT NULL, uuid TEXT NOT NULL UNIQUE,
         serial TEXT NOT NULL, tier TEXT NOT NULL, slots INTEGER NOT NULL, state TEXT NOT NULL,
         life INTEGER NOT NULL, leaving INTEGER NOT NULL, since INTEGER NOT NULL))",
    R"(CREATE TABLE setting(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID)",
    R"(CREATE TABLE fence(node INTEGER NOT NULL, life INTEGER NOT NULL, witness INTEGER NOT NULL,
         PRIMARY KEY(node, life, witness)) WITHOUT ROWID)",
    R"(CREATE TABLE token(hash TEXT PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID)",
    R"(CREATE TABLE answer(session INTEGER NOT NULL, sequence INTEGER NOT NULL,
         node INTEGER NOT NULL, answer TEXT NOT NULL, PRIMARY KEY(session, sequence)) WITHOUT ROWID)",
    R"(CREATE TABLE opened(vsd INTEGER NOT NULL, node INTEGER NOT NULL, state TEXT NOT NULL,
         error TEXT NOT NULL, PRIMARY KEY(vsd, node)) WITHOUT ROWID)",
    R"(CREATE TABLE vsd(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, sectors INTEGER NOT NULL,
         replicas INTEGER NOT NULL, root INTEGER NOT NULL, last_snapshot INTEGER NOT NULL,
         lease_node INTEGER NOT NULL, lease_life INTEGER NOT NULL, epoch INTEGER NOT NULL,
         deleted INTEGER NOT NULL, view INTEGER NOT NULL))",
    R"(CREATE TABLE snapshot(id INTEGER PRIMARY KEY, vsd INTEGER NOT NULL, name TEXT NOT NULL,
         sectors INTEGER NOT NULL, root INTEGER NOT NULL, taken INTEGER NOT NULL,
         created INTEGER NOT NULL, schedule INTEGER NOT NULL, UNIQUE(vsd, name)))",
    R"(CREATE TABLE schedule(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rule TEXT NOT NULL,
         zone TEXT NOT NULL, starts INTEGER NOT NULL, keep INTEGER NOT NULL,
         keep_seconds INTEGER NOT NULL, done INTEGER NOT NULL))",
    R"(CREATE TABLE scheduled(schedule INTEGER NOT NULL, vsd INTEGER NOT NULL,
         PRIMARY KEY(schedule, vsd)) WITHOUT ROWID)",
    R"(CREATE TABLE scheduled_vm(schedule INTEGER NOT NULL, vm INTEGER NOT NULL,
         done INTEGER NOT NULL, PRIMARY KEY(schedule, vm)) WITHOUT ROWID)",
    R"(CREATE TABLE vm(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, uuid TEXT NOT NULL UNIQUE,
         description TEXT NOT NULL, tags TEXT NOT NULL, vcpus INTEGER NOT NULL,
         memory_mib INTEGER NOT NULL, machine TEXT NOT NULL, cpu TEXT NOT NULL,
         priority INTEGER NOT NULL, wanted TEXT NOT NULL, how TEXT NOT NULL, node INTEGER NOT NULL,
         life INTEGER NOT NULL, run INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
         since INTEGER NOT NULL, failures INTEGER NOT NULL, retry_at INTEGER NOT NULL,
         runs INTEGER NOT NULL, to_node INTEGER NOT NULL, to_life INTEGER NOT NULL,
         move TEXT NOT NULL, paused_ms INTEGER NOT NULL, preferred INTEGER NOT NULL,
         apart TEXT NOT NULL, together TEXT NOT NULL, template INTEGER NOT NULL,
         firmware TEXT NOT NULL, tpm INTEGER NOT NULL, screen INTEGER NOT NULL,
         run_vcpus INTEGER NOT NULL, max_memory_mib INTEGER NOT NULL,
         run_cpu TEXT NOT NULL))",
    R"(CREATE TABLE vm_seed(vm INTEGER PRIMARY KEY, user_data TEXT NOT NULL,
         network_config TEXT NOT NULL))",
    R"(CREATE TABLE vm_disk(vm INTEGER NOT NULL, slot INTEGER NOT NULL, vsd INTEGER NOT NULL UNIQUE,
         bus TEXT NOT NULL, iops INTEGER NOT NULL, bytes_per_s INTEGER NOT NULL,
         leaving INTEGER NOT NULL, PRIMARY KEY(vm, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE vm_nic(vm INTEGER NOT NULL, slot INTEGER NOT NULL, mac TEXT NOT NULL UNIQUE,
         bridge TEXT NOT NULL, vlan INTEGER NOT NULL, model TEXT NOT NULL,
         connected INTEGER NOT NULL, PRIMARY KEY(vm, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE vm_snapshot_nic(vm_snapshot INTEGER NOT NULL, slot INTEGER NOT NULL,
         bridge TEXT NOT NULL, vlan INTEGER NOT NULL, model TEXT NOT NULL,
         connected INTEGER NOT NULL, PRIMARY KEY(vm_snapshot, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE vm_snapshot(id INTEGER PRIMARY KEY, vm INTEGER NOT NULL, name TEXT NOT NULL,
         created INTEGER NOT NULL, description TEXT NOT NULL, tags TEXT NOT NULL,
         vcpus INTEGER NOT NULL, memory_mib INTEGER NOT NULL, machine TEXT NOT NULL,
         cpu TEXT NOT NULL, priority INTEGER NOT NULL, schedule INTEGER NOT NULL,
         firmware TEXT NOT NULL, tpm INTEGER NOT NULL, screen INTEGER NOT NULL,
         max_memory_mib INTEGER NOT NULL, at_rest INTEGER NOT NULL, UNIQUE(vm, name)))",
    R"(CREATE TABLE vm_snapshot_disk(vm_snapshot INTEGER NOT NULL, slot INTEGER NOT NULL,
         snapshot INTEGER NOT NULL UNIQUE, bus TEXT NOT NULL, iops INTEGER NOT NULL,
         bytes_per_s INTEGER NOT NULL, PRIMARY KEY(vm_snapshot, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE vm_cdrom(vm INTEGER NOT NULL, slot INTEGER NOT NULL, medium INTEGER NOT NULL,
         held INTEGER NOT NULL, PRIMARY KEY(vm, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE vm_snapshot_cdrom(vm_snapshot INTEGER NOT NULL, slot INTEGER NOT NULL,
         medium INTEGER NOT NULL, PRIMARY KEY(vm_snapshot, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE medium(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, vsd INTEGER NOT NULL,
         snapshot INTEGER NOT NULL, state TEXT NOT NULL, bytes INTEGER NOT NULL,
         received INTEGER NOT NULL, wanted_sha256 TEXT NOT NULL, sha256 TEXT NOT NULL,
         format TEXT NOT NULL, disk_bytes INTEGER NOT NULL, problem TEXT NOT NULL,
         node INTEGER NOT NULL, life INTEGER NOT NULL, done INTEGER NOT NULL,
         created INTEGER NOT NULL, source INTEGER NOT NULL))",
    R"(CREATE TABLE medium_reader(medium INTEGER NOT NULL, node INTEGER NOT NULL,
         until INTEGER NOT NULL, PRIMARY KEY(medium, node)) WITHOUT ROWID)",
    R"(CREATE TABLE filling(vsd INTEGER PRIMARY KEY, medium INTEGER NOT NULL, node INTEGER NOT NULL,
         life INTEGER NOT NULL, done INTEGER NOT NULL, problem TEXT NOT NULL))",
    R"(CREATE TABLE capacity(node INTEGER PRIMARY KEY, life INTEGER NOT NULL,
         memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL, cpu TEXT NOT NULL,
         problem TEXT NOT NULL, lan_bridge TEXT NOT NULL, uplink TEXT NOT NULL,
         lan_problem TEXT NOT NULL, models TEXT NOT NULL))",
    R"(CREATE TABLE event(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL,
         what TEXT NOT NULL, object TEXT NOT NULL, details TEXT NOT NULL))",
    R"(CREATE TABLE bond(node INTEGER NOT NULL, network TEXT NOT NULL, ports TEXT NOT NULL,
         preferred TEXT NOT NULL, PRIMARY KEY(node, network)) WITHOUT ROWID)",
    R"(CREATE TABLE tree(id INTEGER PRIMARY KEY, level INTEGER NOT NULL, refs INTEGER NOT NULL,
         body BLOB NOT NULL))",
    R"(CREATE TABLE extent(id INTEGER PRIMARY KEY, vsd INTEGER NOT NULL, born INTEGER NOT NULL,
         refs INTEGER NOT NULL))",
    R"(CREATE TABLE copy(disk INTEGER NOT NULL, slot INTEGER NOT NULL, extent INTEGER NOT NULL,
         stale INTEGER NOT NULL, PRIMARY KEY(disk, slot)) WITHOUT ROWID)",
    R"(CREATE TABLE reservation(extent INTEGER PRIMARY KEY, node INTEGER NOT NULL,
         life INTEGER NOT NULL))",
    R"(CREATE TABLE garbage(id INTEGER PRIMARY KEY, root INTEGER NOT NULL))",
    R"(CREATE TABLE task(id INTEGER PRIMARY KEY, what TEXT NOT NULL, object INTEGER NOT NULL,
         name TEXT NOT NULL, node INTEGER NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
         began INTEGER NOT NULL, ended INTEGER NOT NULL))",
    R"(CREATE TABLE intent(vsd INTEGER NOT NULL, leaf INTEGER NOT NULL, PRIMARY KEY(vsd, leaf))
         WITHOUT ROWID)",
    R"(CREATE TABLE wanting(extent INTEGER PRIMARY KEY))",
    R"(CREATE TABLE rebalancing(extent INTEGER NOT NULL, disk INTEGER NOT NULL,
         PRIMARY KEY(extent, disk)) WITHOUT ROWID)",
    R"(CREATE TABLE widening(vsd INTEGER PRIMARY KEY, next INTEGER NOT NULL))",
    R"(CREATE TABLE scrub(vsd INTEGER PRIMARY KEY, next INTEGER NOT NULL, began INTEGER NOT NULL,
         done INTEGER NOT NULL))",
    R"(CREATE TABLE damage(extent INTEGER PRIMARY KEY, vsd INTEGER NOT NULL, chunk INTEGER NOT NULL,
         found INTEGER NOT NULL, keep INTEGER NOT NULL))",
    R"(CREATE TABLE relocated(extent INTEGER PRIMARY KEY, at INTEGER NOT NULL))",
    R"(CREATE TABLE gathered(extent INTEGER NOT NULL, row INTEGER NOT NULL, chunk INTEGER NOT NULL,
         at INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY(extent, row)) WITHOUT ROWID)",
    R"(CREATE TABLE quarantine(disk INTEGER NOT NULL, slot INTEGER NOT NULL,
         freed_at INTEGER NOT NULL, PRIMARY KEY(disk, slot)) WITHOUT ROWID)",
};
constexpr std::array kTables = {"counter",      "cluster",
                                "node",         "disk",
                                "setting",      "fence",
                                "token",        "answer",
                                "opened",       "vsd",
                                "snapshot",     "tree",
                                "extent",       "copy",
                                "reservation",  "garbage",
                                "intent",       "task",
                                "scrub",        "damage",
                                "quarantine",   "wanting",
                                "rebalancing",  "widening",
                                "relocated",    "schedule",
                                "scheduled",    "gathered",
                                "vm",           "vm_disk",
                                "vm_snapshot",  "vm_snapshot_disk",
                                "vm_nic",       "vm_snapshot_nic",
                                "capacity",     "bond",
                                "event",        "vm_cdrom",
                                "medium",       "medium_reader",
                                "filling",      "vm_snapshot_cdrom",
                                "scheduled_vm", "vm_seed"};
static_assert(kReplicated.size() == kTables.size());
constexpr int kSchemaVersion = 10;
constexpr int kReaderBusyMs = 10'000;

bool is_damage(int code) { return code == SQLITE_CORRUPT || code == SQLITE_NOTADB; }

Error storage_error(SQLite::Database& sql, const char* what) {
  return {Code::storage, std::string("metadata database: ") + what + ": " + sql.getErrorMsg()};
}

}  // namespace

bool damaged(const SQLite::Exception& err) { return is_damage(err.getErrorCode() & 0xff); }

Database::Database(const std::string& path)
    : sql_(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE) {}

Database::~Database() { rollback(); }

Query::Query(Database& database, const std::string& text) : idle_(database.idle_[text]) {
  if (idle_.empty()) {
    statement_ = std::make_unique<SQLite::Statement>(database.sql_, text);
  } else {
    statement_ = std::move(idle_.back());
    idle_.pop_back();
  }
}

Query::~Query() {
  statement_->tryReset();  // what went wrong was thrown when it ran
  statement_->clearBindings();
  idle_.push_back(std::move(statement_));
}

void Database::create_schema() {
  SQLite::Transaction transaction(sql_);
  for (const char* table : kReplicated) sql_.exec(table);
  sql_.exec("CREATE INDEX copy_by_extent ON copy(extent)");
  sql_.exec("CREATE INDEX extent_by_vsd ON extent(vsd)");
  sql_.exec("CREATE INDEX stale_copy ON copy(extent) WHERE stale <> 0");
  // Local: how far this node is. Not part of what is replicated.
  sql_.exec(
      "CREATE TABLE applied(one INTEGER PRIMARY KEY CHECK(one = 1), log_index INTEGER NOT NULL, "
      "hash INTEGER NOT NULL)");
  sql_.exec("INSERT INTO applied VALUES(1, 0, 0)");
  sql_.exec("PRAGMA user_version = " + std::to_string(kSchemaVersion));
  transaction.commit();
}

Result<std::unique_ptr<Database>> Database::open_reader(const std::string& path) {
  return guarded([&]() -> Result<std::unique_ptr<Database>> {
    std::unique_ptr<Database> db(new Database(path));
    db->sql_.setBusyTimeout(kReaderBusyMs);
    db->sql_.exec("PRAGMA query_only = 1");
    return db;
  });
}

Result<void> Database::hold() {
  return guarded([&]() -> Result<void> {
    sql_.exec("BEGIN");
    // The view begins with the first row that is read.
    const Result<Position> at = applied();
    return at ? Result<void>() : at.error();
  });
}

Result<uint64_t> Database::audit_index() {
  return guarded([&]() -> Result<uint64_t> {
    Query row(*this, "SELECT value FROM counter WHERE name = 'audit'");
    return row.executeStep() ? static_cast<uint64_t>(row.getColumn(0).getInt64()) : 0;
  });
}

Result<void> Database::copy_to(const std::string& path) {
  return guarded([&]() -> Result<void> {
    // It writes another file only, but a reader may not even do that.
    const int reader = sql_.execAndGet("PRAGMA query_only").getInt();
    sql_.exec("PRAGMA query_only = 0");
    SQLite::Statement copy(sql_, "VACUUM INTO ?");
    copy.bind(1, path);
    copy.exec();
    sql_.exec("PRAGMA query_only = " + std::to_string(reader));
    return {};
  });
}

Result<std::unique_ptr<Database>> Database::open(const std::string& path) {
  return guarded([&]() -> Result<std::unique_ptr<Database>> {
    std::unique_ptr<Database> db(new Database(path));
    db->sql_.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    const int version = db->sql_.execAndGet("PRAGMA user_version").getInt();
    if (version == 0) db->create_schema();
    if (version > kSchemaVersion)
      return Error{Code::conflict,
                   path + " was written by a newer version of scaled; upgrade this node"};
    if (version != 0 && version < kSchemaVersion)
      return Error{Code::conflict,
                   path + " was written by an older version of scaled, which this one cannot read"};
    return db;
  });
}

void Database::set_applied(const Position& position) {
  Query update(*this, "UPDATE applied SET log_index = ?, hash = ?");
  update.bind(1, static_cast<int64_t>(position.index));
  update.bind(2, static_cast<int64_t>(position.hash));
  update.exec();
}

Result<Patch> Database::prepare(const std::function<Result<void>()>& change) {
  if (session_ != nullptr) return Error{Code::conflict, "metadata: a transaction is open already"};
  Result<Patch> patch = guarded([&]() -> Result<Patch> {
    sqlite3* handle = sql_.getHandle();
    if (sqlite3session_create(handle, "main", &session_) != SQLITE_OK)
      return storage_error(sql_, "session");
    for (const char* table : kTables) {
      if (sqlite3session_attach(session_, table) != SQLITE_OK)
        return storage_error(sql_, "session");
    }
    sql_.exec("BEGIN IMMEDIATE");
    CORE_TRY(change());
    int bytes = 0;
    void* data = nullptr;
    if (sqlite3session_patchset(session_, &bytes, &data) != SQLITE_OK)
      return storage_error(sql_, "patchset");
    Patch made(static_cast<const char*>(data), static_cast<size_t>(bytes));
    sqlite3_free(data);
    return made;
  });
  if (!patch) rollback();
  return patch;
}

Result<void> Database::commit(const Position& position) {
  Result<void> done = guarded([&]() -> Result<void> {
    set_applied(position);
    sql_.exec("COMMIT");
    return {};
  });
  rollback();  // ends the session; of the transaction only where it failed
  return done;
}

void Database::rollback() {
  if (session_ != nullptr) sqlite3session_delete(session_);
  session_ = nullptr;
  if (sqlite3_get_autocommit(sql_.getHandle()) == 0)
    sqlite3_exec(sql_.getHandle(), "ROLLBACK", nullptr, nullptr, nullptr);
}

Result<void> Database::apply(const Position& position, const Patch& patch) {
  Result<void> done = guarded([&]() -> Result<void> {
    const Result<Position> last = applied();
    if (!last) return last.error();
    if (position.index != last->index + 1)
      return Error{Code::conflict, "metadata: entry " + std::to_string(position.index) +
                                       " does not follow " + std::to_string(last->index)};
    sql_.exec("BEGIN IMMEDIATE");
    auto on_conflict = [](void*, int, sqlite3_changeset_iter*) { return SQLITE_CHANGESET_ABORT; };
    const int code =
        sqlite3changeset_apply(sql_.getHandle(), static_cast<int>(patch.size()),
                               const_cast<char*>(patch.data()), nullptr, on_conflict, nullptr);
    if (code != SQLITE_OK)
      return Error{code == SQLITE_ABORT || is_damage(code & 0xff) ? Code::corrupt : Code::storage,
                   "metadata: entry " + std::to_string(position.index) +
                       " does not fit this database: " + sqlite3_errstr(code)};
    set_applied(position);
    sql_.exec("COMMIT");
    return {};
  });
  rollback();
  return done;
}

Result<Position> Database::applied() {
  return guarded([&]() -> Result<Position> {
    Query row(*this, "SELECT log_index, hash FROM applied");
    if (!row.executeStep()) return Error{Code::corrupt, "metadata: no applied index"};
    return Position{static_cast<uint64_t>(row.getColumn(0).getInt64()),
                    static_cast<uint64_t>(row.getColumn(1).getInt64())};
  });
}

void Database::interrupt() { sqlite3_interrupt(sql_.getHandle()); }

Result<uint64_t> Database::digest() {
  return guarded([&]() -> Result<uint64_t> {
    std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                   &XXH3_freeState);
    XXH3_64bits_reset(state.get());
    for (const char* table : kTables) {
      // All replicated tables begin with the columns of their primary key, at most three.
      const int columns =
          SQLite::Statement(sql_, std::string("SELECT * FROM ") + table).getColumnCount();
      SQLite::Statement rows(sql_, std::string("SELECT * FROM ") + table + " ORDER BY 1" +
                                       (columns > 1 ? ", 2" : "") + (columns > 2 ? ", 3" : ""));
      XXH3_64bits_update(state.get(), table, std::char_traits<char>::length(table));
      while (rows.executeStep()) {
        for (int i = 0; i < rows.getColumnCount(); i++) {
          const SQLite::Column column = rows.getColumn(i);
          const std::string text = column.getString();
          const uint64_t size = text.size();
          XXH3_64bits_update(state.get(), &size, sizeof(size));
          XXH3_64bits_update(state.get(), text.data(), text.size());
        }
      }
    }
    return XXH3_64bits_digest(state.get());
  });
}

}  // namespace meta
