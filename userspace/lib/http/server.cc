// SPDX-License-Identifier: GPL-2.0
#include <pwd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <fstream>
#include <thread>
#include <vector>

#include "http/context.h"
#include "http/http.h"

namespace http {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using core::Code;
using core::Error;
using Local = asio::local::stream_protocol;
using Tcp = asio::ip::tcp;

namespace {

constexpr std::chrono::seconds kIdle{120};      // a connection without a request
constexpr std::chrono::seconds kTransfer{120};  // one request or answer on the wire

core::NodeId node_of(const std::string& name) {
  constexpr std::string_view prefix = "node-";
  if (!name.starts_with(prefix)) return {};
  uint64_t number = 0;
  for (const char c : name.substr(prefix.size())) {
    if (c < '0' || c > '9' || number > 255) return {};
    number = number * 10 + static_cast<uint64_t>(c - '0');
  }
  return {number};
}

// The kernel keeps it for all that a session begins, whatever these become; so it is good for
// telling who did something, as in audit(8). The process may be another one by now only where
// who asked has ended.
std::string login_of(int socket) {
  constexpr uid_t kNobody = static_cast<uid_t>(-1);
  constexpr size_t kMost = size_t{16} << 10;
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return "";
  uid_t uid = kNobody;
  if (!(std::ifstream("/proc/" + std::to_string(peer.pid) + "/loginuid") >> uid) || uid == kNobody)
    return "";
  std::vector<char> text(kMost);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(uid, &entry, text.data(), text.size(), &found) != 0 || found == nullptr)
    return "user " + std::to_string(uid);
  return found->pw_name;
}

}  // namespace

struct Server::State {
  State(Handler h, size_t threads) : handler(std::move(h)), pool(threads) {}

  Handler handler;
  asio::io_context io{1};
  asio::thread_pool pool;
  std::vector<std::unique_ptr<asio::ssl::context>> contexts;
  std::thread loop;
  asio::executor_work_guard<asio::io_context::executor_type> guard{io.get_executor()};

  // Requests of one connection, one after the other, by whom `asker` says. The stream's own thread
  // never runs a handler.
  template <class Stream>
  asio::awaitable<void> converse(Stream& stream, Request asker) {
    beast::flat_buffer buffer;
    for (;;) {
      beast::get_lowest_layer(stream).expires_after(kIdle);
      bhttp::request_parser<bhttp::string_body> parser;
      parser.body_limit(kMaxBodyBytes);
      co_await bhttp::async_read(stream, buffer, parser, asio::use_awaitable);
      const auto& message = parser.get();
      Request request = asker;
      request.method = message.method_string();
      request.path = message.target();
      request.body = message.body();
      const bool keep = message.keep_alive();
      beast::get_lowest_layer(stream).expires_never();
      const Response response = co_await asio::co_spawn(
          pool, [&]() -> asio::awaitable<Response> { co_return handler(request); },
          asio::use_awaitable);
      bhttp::response<bhttp::string_body> answer{static_cast<bhttp::status>(response.status), 11};
      answer.set(bhttp::field::content_type, response.content_type);
      answer.keep_alive(keep);
      answer.body() = response.body;
      answer.prepare_payload();
      beast::get_lowest_layer(stream).expires_after(kTransfer);
      co_await bhttp::async_write(stream, answer, asio::use_awaitable);
      if (!keep) co_return;
    }
  }

  asio::awaitable<void> serve_local(Local::socket socket) {
    Request asker;
    asker.local = true;
    asker.person = login_of(socket.native_handle());
    beast::basic_stream<Local> stream(std::move(socket));
    co_await converse(stream, std::move(asker));
  }

  asio::awaitable<void> serve_tls(Tcp::socket socket, asio::ssl::context& context) {
    beast::ssl_stream<beast::tcp_stream> stream(beast::tcp_stream(std::move(socket)), context);
    beast::get_lowest_layer(stream).expires_after(kTransfer);
    co_await stream.async_handshake(asio::ssl::stream_base::server, asio::use_awaitable);
    Request asker;
    asker.peer = node_of(peer_name(stream.native_handle()));
    co_await converse(stream, std::move(asker));
  }

  asio::awaitable<void> accept_local(Local::acceptor acceptor) {
    for (;;) {
      auto socket = co_await acceptor.async_accept(asio::use_awaitable);
      // A broken connection is its client's concern: nothing to log, nothing to do.
      asio::co_spawn(io, serve_local(std::move(socket)), [](const std::exception_ptr&) {});
    }
  }

  asio::awaitable<void> accept_tls(Tcp::acceptor acceptor, asio::ssl::context& context) {
    for (;;) {
      auto socket = co_await acceptor.async_accept(asio::use_awaitable);
      asio::co_spawn(io, serve_tls(std::move(socket), context), [](const std::exception_ptr&) {});
    }
  }

  void start() {
    if (!loop.joinable()) loop = std::thread([this] { io.run(); });
  }
};

Server::Server(Handler handler, size_t threads)
    : state_(std::make_unique<State>(std::move(handler), threads)) {}

Server::~Server() {
  state_->io.stop();
  if (state_->loop.joinable()) state_->loop.join();
  state_->pool.join();
}

Result<void> Server::listen_local(const std::string& path) {
  try {
    ::unlink(path.c_str());
    const mode_t before = ::umask(0177);
    Local::acceptor acceptor(state_->io, Local::endpoint(path));
    ::umask(before);
    asio::co_spawn(state_->io, state_->accept_local(std::move(acceptor)), asio::detached);
  } catch (const boost::system::system_error& err) {
    return Error{Code::storage, path + ": " + err.code().message()};
  }
  state_->start();
  return {};
}

Result<void> Server::listen_tls(const std::string& address, uint16_t port,
                                const tls::Identity& identity) {
  try {
    auto context = std::make_unique<asio::ssl::context>(make_context(identity));
    // A certificate is asked for, not demanded: who joins has none yet. Handlers look at `peer`.
    context->set_verify_mode(asio::ssl::verify_peer);
    const Tcp::endpoint endpoint(asio::ip::make_address(address), port);
    Tcp::acceptor acceptor(state_->io, endpoint, true);
    asio::co_spawn(state_->io, state_->accept_tls(std::move(acceptor), *context), asio::detached);
    state_->contexts.push_back(std::move(context));
  } catch (const boost::system::system_error& err) {
    return Error{Code::storage,
                 address + " port " + std::to_string(port) + ": " + err.code().message()};
  }
  state_->start();
  return {};
}

}  // namespace http
