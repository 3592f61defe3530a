// SPDX-License-Identifier: GPL-2.0
#include "config.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace scaled {

namespace json = boost::json;

namespace {

Error failed(const std::filesystem::path& path, const char* what) {
  return {Code::storage, path.string() + ": " + what + ": " + std::strerror(errno)};
}

std::string text(const json::object& object, const char* name) {
  return json::value_to<std::string>(object.at(name));
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  if (!file) return failed(path, "read");
  return out.str();
}

Result<void> write_file(const std::filesystem::path& path, const std::string& text, unsigned mode) {
  std::filesystem::path fresh = path;
  fresh += ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return failed(fresh, "create");
  bool good = true;
  for (size_t at = 0; good && at < text.size();) {
    const ssize_t put = ::write(fd, text.data() + at, text.size() - at);
    good = put > 0 || (put < 0 && errno == EINTR);
    if (put > 0) at += static_cast<size_t>(put);
  }
  good = good && ::fsync(fd) == 0;
  ::close(fd);
  if (!good || ::rename(fresh.c_str(), path.c_str()) != 0) return failed(path, "write");
  const int directory = ::open(path.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  good = directory >= 0 && ::fsync(directory) == 0;
  if (directory >= 0) ::close(directory);
  if (!good) return failed(path.parent_path(), "sync");
  return {};
}

Result<std::optional<Config>> load_config(const Paths& paths) {
  std::error_code err;
  if (!std::filesystem::exists(paths.config(), err)) return std::optional<Config>();
  auto data = read_file(paths.config());
  if (!data) return data.error();
  try {
    const json::object o = json::parse(*data).as_object();
    Config c;
    c.node = {o.at("node").to_number<uint64_t>()};
    c.name = text(o, "name");
    c.cluster = text(o, "cluster");
    c.lan = text(o, "lan");
    c.backplane = text(o, "backplane");
    c.single = o.at("single").as_bool();
    c.founder = o.at("founder").as_bool();
    c.etcd_member = o.at("etcd_member").as_bool();
    c.plain_backplane = o.at("plain_backplane").as_bool();
    c.identity = {{text(o, "cert"), text(o, "key")}, text(o, "ca_cert")};
    c.authority = {text(o, "ca_cert"), text(o, "ca_key")};
    c.lease = std::chrono::milliseconds(o.at("lease_ms").to_number<int64_t>());
    auto uuid = host::parse_uuid(text(o, "uuid"));
    if (!uuid) return uuid.error();
    c.uuid = *uuid;
    return std::optional(c);
  } catch (const std::exception& problem) {
    return Error{Code::corrupt, paths.config().string() + ": " + problem.what()};
  }
}

Result<void> save_config(const Paths& paths, const Config& c) {
  const json::object o{{"node", c.node.value},
                       {"name", c.name},
                       {"cluster", c.cluster},
                       {"uuid", host::to_string(c.uuid)},
                       {"lan", c.lan},
                       {"backplane", c.backplane},
                       {"single", c.single},
                       {"founder", c.founder},
                       {"etcd_member", c.etcd_member},
                       {"plain_backplane", c.plain_backplane},
                       {"cert", c.identity.own.cert},
                       {"key", c.identity.own.key},
                       {"ca_cert", c.identity.ca_cert},
                       {"ca_key", c.authority.key},
                       {"lease_ms", c.lease.count()}};
  std::error_code err;
  std::filesystem::create_directories(paths.state, err);
  return write_file(paths.config(), json::serialize(o) + "\n", 0600);
}

}  // namespace scaled
