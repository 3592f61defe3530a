// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/id.h"
#include "core/result.h"
#include "tls/authority.h"

namespace http {

using core::Result;

struct Request {
  std::string method;
  std::string path;  ///< with the query, if any
  std::string body;
  /// Who asks: the superuser on this machine, over the local socket; another node, by its
  /// certificate; or anybody, who may do nothing but join with a token.
  bool local = false;
  core::NodeId peer;
  /// Where local: the name by which whoever asks had logged in, also where that is not the
  /// superuser's any more; "" where it was nobody's: of a service's, say.
  std::string person;
};

struct Response {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
};

using Handler = std::function<Response(const Request&)>;

/// Serves HTTP/1.1 on a local socket and over TLS. Handlers run on a pool of threads and may block;
/// requests beyond the pool wait their turn. The destructor ends all connections and waits for
/// handlers.
class Server {
 public:
  static constexpr size_t kMaxBodyBytes = size_t{16} << 20;

  Server(Handler handler, size_t threads);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Replaces a stale socket file; only its owner may connect.
  Result<void> listen_local(const std::string& path);
  Result<void> listen_tls(const std::string& address, uint16_t port, const tls::Identity& identity);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A server to call: a local socket, or a node over TLS.
struct Target {
  std::string local_path;
  std::string host;
  uint16_t port = 0;
  /// Its certificate must be signed by this CA, and, where `node` is given, be that node's.
  const tls::Identity* identity = nullptr;
  core::NodeId node;
  /// Instead of an identity: the CA's fingerprint, from a join token.
  std::string ca_fingerprint;
};

/// A connection that is kept between calls; made on the first, and anew after an error. One thread
/// uses an object.
class Client {
 public:
  explicit Client(Target target);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// As call() below.
  [[nodiscard]] Result<Response> call(const std::string& method, const std::string& path,
                                      const std::string& body, std::chrono::milliseconds timeout);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// One request on a connection of its own. Code::unknown: no answer within `timeout`, or the
/// connection broke; the request may have been served.
[[nodiscard]] Result<Response> call(const Target& target, const std::string& method,
                                    const std::string& path, const std::string& body,
                                    std::chrono::milliseconds timeout);

}  // namespace http
