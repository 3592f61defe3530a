// SPDX-License-Identifier: GPL-2.0
#include "tls/kernel_tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <array>
#include <charconv>
#include <memory>
#include <string_view>

#include "tls/openssl.h"

namespace tls {

namespace {

using core::Code;
using core::Error;

using Context = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using Session = std::unique_ptr<SSL, Deleter<SSL_free>>;

std::string last_error() {
  std::array<char, 256> text{};
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (code == 0) return "the connection broke";
  ERR_error_string_n(code, text.data(), text.size());
  return text.data();
}

Context make_context(Side side, const Identity& identity) {
  Context context(SSL_CTX_new(side == Side::client ? TLS_client_method() : TLS_server_method()));
  const Cert own(PEM_read_bio_X509(bio_of(identity.own.cert).get(), nullptr, nullptr, nullptr));
  const Cert ca(PEM_read_bio_X509(bio_of(identity.ca_cert).get(), nullptr, nullptr, nullptr));
  const Key key(PEM_read_bio_PrivateKey(bio_of(identity.own.key).get(), nullptr, nullptr, nullptr));
  if (!context || !own || !ca || !key) return nullptr;
  SSL_CTX_set_options(context.get(), SSL_OP_ENABLE_KTLS | SSL_OP_NO_TICKET |
                                         SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  const bool good = SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) == 1 &&
                    SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION) == 1 &&
                    SSL_CTX_set_cipher_list(context.get(), "ECDHE-ECDSA-AES128-GCM-SHA256") == 1 &&
                    SSL_CTX_use_certificate(context.get(), own.get()) == 1 &&
                    SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1 &&
                    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), ca.get()) == 1;
  return good ? std::move(context) : nullptr;
}

// The node that its certificate, which is verified by now, names.
core::NodeId node_of(SSL* session) {
  const Cert cert(SSL_get1_peer_certificate(session));
  std::array<char, 128> name{};
  if (!cert || X509_NAME_get_text_by_NID(X509_get_subject_name(cert.get()), NID_commonName,
                                         name.data(), name.size()) <= 0)
    return {};
  const std::string_view text(name.data());
  const size_t dash = text.rfind('-');
  uint64_t number = 0;
  if (dash == std::string_view::npos) return {};
  std::from_chars(text.data() + dash + 1, text.data() + text.size(), number);
  return text == node_name({number}) ? core::NodeId{number} : core::NodeId{};
}

}  // namespace

Result<core::NodeId> secure(int fd, Side side, const Identity& identity) {
  const Context context = make_context(side, identity);
  if (!context) return Error{Code::corrupt, "TLS: this node's certificate: " + last_error()};
  const Session session(SSL_new(context.get()));
  if (!session || SSL_set_fd(session.get(), fd) != 1)
    return Error{Code::storage, "TLS: " + last_error()};
  ERR_clear_error();
  const int done = side == Side::client ? SSL_connect(session.get()) : SSL_accept(session.get());
  if (done != 1) {
    const bool refused = SSL_get_verify_result(session.get()) != X509_V_OK;
    return Error{refused ? Code::invalid : Code::unknown, "TLS: " + last_error()};
  }
  const core::NodeId node = node_of(session.get());
  if (!node) return Error{Code::invalid, "TLS: the other side is no node of this cluster"};
  if (BIO_get_ktls_send(SSL_get_wbio(session.get())) == 0 ||
      BIO_get_ktls_recv(SSL_get_rbio(session.get())) == 0)
    return Error{Code::storage, "TLS: the kernel takes no keys; is its module tls there?"};
  // Freed without a shutdown: the connection goes on.
  return node;
}

}  // namespace tls
