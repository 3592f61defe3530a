// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/result.h"

struct sqlite3_session;

namespace meta {

using core::Code;
using core::Error;
using core::Result;

/// What a transaction changed, to be applied by every other node (a sqlite patchset).
using Patch = std::string;

/// Where a database stands in the log: the last entry that it holds, and the hash of the chain
/// there.
struct Position {
  uint64_t index = 0;
  uint64_t hash = 0;

  friend bool operator==(const Position&, const Position&) = default;
};

/// The metadata of one node: a sqlite database and the index of the last log entry that it holds.
///
/// A leader calls prepare(), appends the patch to the log, then calls commit() or rollback(). A
/// follower calls apply(). One thread uses an object. SQLite's exceptions end here, as
/// Code::storage, or as Code::corrupt where the file is damaged.
class Database {
 public:
  /// Opens or creates a file; ":memory:" for a test.
  [[nodiscard]] static Result<std::unique_ptr<Database>> open(const std::string& path);

  /// A second connection to an open database, which only reads, for another thread: one connection
  /// writes and checkpoints. Each
  /// transaction on it sees one state between two log entries.
  [[nodiscard]] static Result<std::unique_ptr<Database>> open_reader(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  /// Runs `change` in a transaction that stays open, and gives what it changed; an error of
  /// `change` rolls it back. Pre: no transaction is open.
  [[nodiscard]] Result<Patch> prepare(const std::function<Result<void>()>& change);

  /// Makes the prepared transaction durable as a log entry. Pre: prepare() succeeded.
  [[nodiscard]] Result<void> commit(const Position& position);
  void rollback();

  /// Applies another node's patch as a log entry, which must follow applied(). An entry that does
  /// not fit means that the databases differ (Code::corrupt): nothing is changed, refetch.
  [[nodiscard]] Result<void> apply(const Position& position, const Patch& patch);

  /// The last entry, durable with its changes; {0, 0} for a new database.
  [[nodiscard]] Result<Position> applied();

  /// Writes a copy, in one read transaction, to a file that does not exist. Works on a reader.
  [[nodiscard]] Result<void> copy_to(const std::string& path);

  /// A reader only: from now on it sees what is there now, until it ends.
  [[nodiscard]] Result<void> hold();

  /// The entry that last asked for an audit; 0 for none.
  [[nodiscard]] Result<uint64_t> audit_index();

  /// A hash over all replicated rows: equal on nodes that applied the same entries.
  [[nodiscard]] Result<uint64_t> digest();

  /// Ends what another thread is doing with this connection, with an error. Any thread.
  void interrupt();

  /// The connection, for the other files of this library.
  SQLite::Database& sql() { return sql_; }

 private:
  friend class Query;
  using Statements = std::vector<std::unique_ptr<SQLite::Statement>>;

  explicit Database(const std::string& path);
  void create_schema();
  void set_applied(const Position& position);

  SQLite::Database sql_;
  sqlite3_session* session_ = nullptr;
  std::unordered_map<std::string, Statements> idle_;  // by text: compiling costs more than running
};

/// A statement of a connection, compiled once for all of its uses. Ends with its scope, so it must
/// not outlive the transaction that it runs in.
class Query {
 public:
  Query(Database& database, const std::string& text);
  ~Query();
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  template <class... Args>
  void bind(Args&&... args) {
    statement_->bind(std::forward<Args>(args)...);
  }
  int exec() { return statement_->exec(); }
  void reset() { statement_->reset(); }
  bool executeStep() { return statement_->executeStep(); }
  SQLite::Column getColumn(int index) { return statement_->getColumn(index); }
  SQLite::Statement& operator*() { return *statement_; }

 private:
  Database::Statements& idle_;
  std::unique_ptr<SQLite::Statement> statement_;
};

/// Whether the database's file is damaged, so that trying again is of no use.
[[nodiscard]] bool damaged(const SQLite::Exception& err);

/// Runs a function that uses SQLiteCpp; its exceptions become Code::storage, or Code::corrupt.
template <class Function>
auto guarded(Function&& function) -> decltype(function()) {
  try {
    return function();
  } catch (const SQLite::Exception& err) {
    return Error{damaged(err) ? Code::corrupt : Code::storage,
                 std::string("metadata database: ") + err.what()};
  }
}

}  // namespace meta
