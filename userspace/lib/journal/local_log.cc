// SPDX-License-Identifier: GPL-2.0
#include "journal/local_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <vector>

#include "journal/record.h"

namespace journal {

namespace {

bool any_record_behind(std::string_view data, size_t at) {
  for (size_t i = at + 1; i + kMinRecordBytes <= data.size(); i++)
    if (decode_record(data, i)) return true;
  return false;
}

Error io_error(const std::filesystem::path& path, const char* what) {
  return {Code::storage, "log: " + path.string() + ": " + what + ": " + std::strerror(errno)};
}

Error corrupt(const std::filesystem::path& path, size_t at) {
  return {Code::corrupt, "log: " + path.string() + " is damaged at byte " + std::to_string(at) +
                             ", with good records behind it; restore it or rejoin this node"};
}

Result<std::string> read_all(int fd, const std::filesystem::path& path) {
  struct stat about {};
  if (::fstat(fd, &about) != 0) return io_error(path, "stat");
  std::string data(static_cast<size_t>(about.st_size), '\0');
  for (size_t done = 0; done < data.size();) {
    const ssize_t got =
        ::pread(fd, data.data() + done, data.size() - done, static_cast<off_t>(done));
    if (got <= 0) return io_error(path, "read");
    done += static_cast<size_t>(got);
  }
  return data;
}

bool write_all(int fd, std::string_view data, uint64_t at) {
  while (!data.empty()) {
    const ssize_t put = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    data.remove_prefix(static_cast<size_t>(put));
    at += static_cast<uint64_t>(put);
  }
  return true;
}

}  // namespace

LocalLog::~LocalLog() {
  for (auto& [first, file] : files_) ::close(file.fd);
}

Result<std::unique_ptr<LocalLog>> LocalLog::open(const std::filesystem::path& directory,
                                                 size_t file_bytes) {
  std::error_code err;
  std::filesystem::create_directories(directory, err);
  if (err) return Error{Code::storage, "log: " + directory.string() + ": " + err.message()};
  std::unique_ptr<LocalLog> log(new LocalLog(directory, file_bytes));
  CORE_TRY(log->load());
  return log;
}

Result<void> LocalLog::load() {
  std::vector<std::filesystem::path> paths;
  std::error_code err;
  for (const auto& item : std::filesystem::directory_iterator(directory_, err))
    if (item.path().filename().string().starts_with("log-")) paths.push_back(item.path());
  if (err) return Error{Code::storage, "log: " + directory_.string() + ": " + err.message()};
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) CORE_TRY(load_file(path, path == paths.back()));
  return {};
}

Result<void> LocalLog::load_file(const std::filesystem::path& path, bool last) {
  File file;
  file.path = path;
  file.fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file.fd < 0) return io_error(path, "open");
  Result<std::string> read = read_all(file.fd, path);
  size_t at = 0;
  const bool chained = !files_.empty();
  while (read && at < read->size()) {
    const std::optional<Record> record = decode_record(*read, at);
    if (!record) break;
    // The oldest file after a trim starts a chain that we cannot check further back.
    if ((chained || !file.offsets.empty()) &&
        (record->index != head_ + 1 || record->prev_hash != head_hash_)) {
      read = corrupt(path, at);
      break;
    }
    if (file.offsets.empty()) file.prev_hash = record->prev_hash;
    file.offsets[record->index] = at;
    head_ = record->index;
    head_hash_ = record->hash;
    at += record->bytes;
  }
  if (read && at < read->size() && (!last || any_record_behind(*read, at)))
    read = corrupt(path, at);
  if (read && at < read->size() &&
      (::ftruncate(file.fd, static_cast<off_t>(at)) != 0 || ::fsync(file.fd) != 0))
    read = io_error(path, "cut the torn end off");
  if (!read || file.offsets.empty()) {
    ::close(file.fd);
    if (!read) return read.error();
    if (::unlink(path.c_str()) != 0) return io_error(path, "remove");
    return {};
  }
  file.bytes = at;
  const uint64_t first = file.offsets.begin()->first;
  files_.emplace(first, std::move(file));
  return {};
}

Result<void> LocalLog::sync_directory() const {
  const int fd = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return io_error(directory_, "open");
  const bool good = ::fsync(fd) == 0;
  const int saved = errno;
  ::close(fd);
  errno = saved;
  if (!good) return io_error(directory_, "sync");
  return {};
}

Result<void> LocalLog::start_file() {
  std::array<char, 32> name{};
  const unsigned long long first = head_ + 1;
  std::snprintf(name.data(), name.size(), "log-%016llx", first);
  File file;
  file.path = directory_ / name.data();
  file.prev_hash = head_hash_;
  file.fd = ::open(file.path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file.fd < 0) return io_error(file.path, "create");
  files_.emplace(first, std::move(file));
  // A record is durable only together with the name of its file.
  return sync_directory();
}

Result<View> LocalLog::tend(uint64_t) { return View{true, {}}; }

Result<Entry> LocalLog::append(uint64_t index, uint64_t prev_hash, std::string payload) {
  if (failed_)
    return Error{Code::storage, "log: a write failed before; open the log again to find out"};
  if (index != head_ + 1)
    return Error{Code::conflict, "log: entry " + std::to_string(index) + " does not follow " +
                                     std::to_string(head_)};
  if (prev_hash != head_hash_)
    return Error{Code::corrupt, "log: the database does not come from this log: entry " +
                                    std::to_string(head_) + " differs"};
  if (payload.size() > kMaxPayloadBytes)
    return Error{Code::invalid, "log: an entry has at most " + std::to_string(kMaxPayloadBytes) +
                                    " bytes, this one " + std::to_string(payload.size())};
  failed_ = true;  // until we know better
  if (files_.empty() || files_.rbegin()->second.bytes >= file_bytes_) CORE_TRY(start_file());
  File& file = files_.rbegin()->second;
  const std::string record = encode_record(index, head_hash_, payload);
  if (!write_all(file.fd, record, file.bytes) || ::fdatasync(file.fd) != 0)
    return Error{Code::unknown, io_error(file.path, "write").text};
  failed_ = false;
  file.offsets[index] = file.bytes;
  file.bytes += record.size();
  head_ = index;
  head_hash_ = decode_record(record, 0)->hash;
  return Entry{index, prev_hash, head_hash_, std::move(payload)};
}

Result<Entry> LocalLog::read(uint64_t index) const {
  auto above = files_.upper_bound(index);
  if (above == files_.begin() || index > head_)
    return Error{Code::not_found, "log: there is no entry " + std::to_string(index)};
  const File& file = std::prev(above)->second;
  const auto from = file.offsets.find(index);
  const auto to = std::next(from);
  const uint64_t end = to == file.offsets.end() ? file.bytes : to->second;
  std::string data(end - from->second, '\0');
  const ssize_t got = ::pread(file.fd, data.data(), data.size(), static_cast<off_t>(from->second));
  if (got != static_cast<ssize_t>(data.size())) return io_error(file.path, "read");
  const std::optional<Record> record = decode_record(data, 0);
  if (!record || record->index != index)
    return Error{Code::corrupt, "log: entry " + std::to_string(index) + " in " +
                                    file.path.string() + " is damaged"};
  return Entry{index, record->prev_hash, record->hash, std::string(record->payload)};
}

Result<std::vector<Entry>> LocalLog::read_from(uint64_t index, size_t limit) {
  std::vector<Entry> out;
  if (index < first())
    return Error{Code::stale, "log: entry " + std::to_string(index) + " was trimmed"};
  for (; index <= head_ && out.size() < limit; index++) {
    Result<Entry> entry = read(index);
    if (!entry) return entry.error();
    out.push_back(std::move(*entry));
  }
  return out;
}

Result<void> LocalLog::trim(uint64_t index) {
  // The last file stays: it holds the head's hash.
  while (files_.size() > 1 && std::next(files_.begin())->first <= index + 1) {
    File& file = files_.begin()->second;
    if (::unlink(file.path.c_str()) != 0) return io_error(file.path, "remove");
    ::close(file.fd);
    files_.erase(files_.begin());
  }
  return sync_directory();
}

}  // namespace journal
