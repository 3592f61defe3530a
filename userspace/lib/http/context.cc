// SPDX-License-Identifier: GPL-2.0
#include "http/context.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <array>

namespace http {

namespace ssl = boost::asio::ssl;

ssl::context make_context(const tls::Identity& identity) {
  ssl::context context(ssl::context::tls);
  context.set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1_1 |
                      ssl::context::no_tlsv1 | ssl::context::no_sslv3);
  if (!identity.own.cert.empty()) {
    // The chain with the CA: somebody who joins has only the CA's fingerprint.
    context.use_certificate_chain(boost::asio::buffer(identity.own.cert + identity.ca_cert));
    context.use_private_key(boost::asio::buffer(identity.own.key), ssl::context::pem);
  }
  if (!identity.ca_cert.empty())
    context.add_certificate_authority(boost::asio::buffer(identity.ca_cert));
  return context;
}

std::string peer_name(SSL* ssl) {
  if (SSL_get_verify_result(ssl) != X509_V_OK) return {};
  X509* cert = SSL_get1_peer_certificate(ssl);
  if (cert == nullptr) return {};
  std::array<char, 128> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name.data(), name.size());
  X509_free(cert);
  return name.data();
}

std::string root_fingerprint(SSL* ssl) {
  STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl);
  if (chain == nullptr || sk_X509_num(chain) < 2) return {};
  X509* root = sk_X509_value(chain, sk_X509_num(chain) - 1);
  // The shown certificate must really come from that root, not only lie beside it.
  if (X509_verify(sk_X509_value(chain, 0), X509_get0_pubkey(root)) != 1) return {};
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, root);
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(out, &data);
  const std::string pem(data, static_cast<size_t>(bytes));
  BIO_free(out);
  const auto print = tls::fingerprint(pem);
  return print ? *print : std::string();
}

}  // namespace http
