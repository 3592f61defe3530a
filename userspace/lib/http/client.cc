// SPDX-License-Identifier: GPL-2.0
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <limits>
#include <optional>

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

// Half of what the server keeps one for without a request; etcd keeps them for longer.
constexpr std::chrono::seconds kKeep{60};

using Plain = beast::basic_stream<Local>;
using Secure = beast::ssl_stream<beast::tcp_stream>;

template <class Stream>
asio::awaitable<Response> exchange(Stream& stream, const std::string& method,
                                   const std::string& path, const std::string& body, bool keep) {
  bhttp::request<bhttp::string_body> request;
  request.method_string(method);
  request.target(path);
  request.version(11);
  request.set(bhttp::field::host, "localhost");
  request.set(bhttp::field::content_type, "application/json");
  request.keep_alive(keep);
  request.body() = body;
  request.prepare_payload();
  co_await bhttp::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::string_body> parser;
  parser.body_limit(std::numeric_limits<uint64_t>::max());
  co_await bhttp::async_read(stream, buffer, parser, asio::use_awaitable);
  if (keep && !parser.get().keep_alive()) beast::get_lowest_layer(stream).socket().close();
  co_return Response{parser.get().result_int(), std::move(parser.get().body()),
                     std::string(parser.get()[bhttp::field::content_type])};
}

std::string name_of(const Target& target) {
  return target.local_path.empty() ? target.host + " port " + std::to_string(target.port)
                                   : target.local_path;
}

}  // namespace

struct Client::State {
  explicit State(Target t) : target(std::move(t)) {}

  Target target;
  asio::io_context io{1};
  std::optional<asio::ssl::context> context;
  std::optional<Plain> plain;
  std::optional<Secure> secure;
  std::chrono::steady_clock::time_point used;

  void drop() {
    plain.reset();
    secure.reset();
  }

  asio::awaitable<Result<Response>> call_local(const std::string& method, const std::string& path,
                                               const std::string& body,
                                               std::chrono::milliseconds timeout) {
    if (!plain || !plain->socket().is_open()) {
      plain.emplace(io);
      plain->expires_after(timeout);
      co_await plain->async_connect(Local::endpoint(target.local_path), asio::use_awaitable);
    }
    plain->expires_after(timeout);
    co_return co_await exchange(*plain, method, path, body, true);
  }

  asio::awaitable<Result<void>> connect_tls(std::chrono::milliseconds timeout) {
    const tls::Identity nobody;
    context.emplace(make_context(target.identity != nullptr ? *target.identity : nobody));
    const bool pinned = !target.ca_fingerprint.empty();
    context->set_verify_mode(pinned ? asio::ssl::verify_none : asio::ssl::verify_peer);
    secure.emplace(io, *context);
    auto& tcp = beast::get_lowest_layer(*secure);
    tcp.expires_after(timeout);
    boost::system::error_code err;
    const auto address = asio::ip::make_address(target.host, err);
    if (err) {
      Tcp::resolver resolver(io);
      const auto where = co_await resolver.async_resolve(target.host, std::to_string(target.port),
                                                         asio::use_awaitable);
      co_await tcp.async_connect(where, asio::use_awaitable);
    } else {
      co_await tcp.async_connect(Tcp::endpoint(address, target.port), asio::use_awaitable);
    }
    tcp.socket().set_option(Tcp::no_delay(true));
    co_await secure->async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
    if (pinned && root_fingerprint(secure->native_handle()) != target.ca_fingerprint)
      co_return Error{Code::invalid,
                      target.host + " is not a node of the cluster that the token is for"};
    if (target.node && peer_name(secure->native_handle()) != tls::node_name(target.node))
      co_return Error{Code::invalid, target.host + " is not " + tls::node_name(target.node)};
    co_return Result<void>();
  }

  asio::awaitable<Result<Response>> call_tls(const std::string& method, const std::string& path,
                                             const std::string& body,
                                             std::chrono::milliseconds timeout) {
    if (!secure || !beast::get_lowest_layer(*secure).socket().is_open()) {
      const auto connected = co_await connect_tls(timeout);
      if (!connected) {
        drop();
        co_return connected.error();
      }
    }
    beast::get_lowest_layer(*secure).expires_after(timeout);
    co_return co_await exchange(*secure, method, path, body, true);
  }
};

Client::Client(Target target) : state_(std::make_unique<State>(std::move(target))) {}
Client::~Client() = default;

Result<Response> Client::call(const std::string& method, const std::string& path,
                              const std::string& body, std::chrono::milliseconds timeout) {
  const std::string name = name_of(state_->target);
  Result<Response> result = Error{Code::unknown, name + ": no answer"};
  bool broken = true;
  bool done = false;
  // The server ends one that was idle: what is sent on that is lost, and may not be sent twice.
  if (std::chrono::steady_clock::now() - state_->used > kKeep) state_->drop();
  state_->io.restart();
  asio::co_spawn(state_->io,
                 state_->target.local_path.empty()
                     ? state_->call_tls(method, path, body, timeout)
                     : state_->call_local(method, path, body, timeout),
                 [&](const std::exception_ptr& failure, Result<Response> got) {
                   done = true;
                   if (!failure) {
                     result = std::move(got);
                     broken = false;
                     return;
                   }
                   try {
                     std::rethrow_exception(failure);
                   } catch (const boost::system::system_error& err) {
                     result = Error{Code::unknown, name + ": " + err.code().message()};
                   } catch (const std::exception& err) {
                     result = Error{Code::unknown, name + ": " + err.what()};
                   }
                 });
  // Until the call has ended; a timer that is still set does not hold it up.
  while (!done && state_->io.run_one() != 0) {
  }
  if (broken) state_->drop();
  state_->used = std::chrono::steady_clock::now();
  return result;
}

Result<Response> call(const Target& target, const std::string& method, const std::string& path,
                      const std::string& body, std::chrono::milliseconds timeout) {
  return Client(target).call(method, path, body, timeout);
}

}  // namespace http
