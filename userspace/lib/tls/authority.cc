// SPDX-License-Identifier: GPL-2.0
#include "tls/authority.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <vector>

#include "tls/openssl.h"

namespace tls {

namespace {

using core::Code;
using core::Error;

constexpr long kYears = 30;
constexpr long kValidSeconds = kYears * 365 * 24 * 3600;
// A node whose clock lags behind the one that signed must not refuse.
constexpr long kClockSlackSeconds = 24L * 3600;

Error failed(const char* what) {
  return {Code::storage, std::string("TLS: OpenSSL could not ") + what};
}

std::string hex(const unsigned char* data, size_t bytes) {
  constexpr const char* digits = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < bytes; i++) {
    out.push_back(digits[data[i] >> 4]);
    out.push_back(digits[data[i] & 15]);
  }
  return out;
}

std::string text_of(const Bio& bio) {
  char* data = nullptr;
  const long bytes = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(bytes)};
}

Cert read_cert(const std::string& pem) {
  return Cert(PEM_read_bio_X509(bio_of(pem).get(), nullptr, nullptr, nullptr));
}

Key read_key(const std::string& pem) {
  return Key(PEM_read_bio_PrivateKey(bio_of(pem).get(), nullptr, nullptr, nullptr));
}

bool extend(X509* cert, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, cert, nullptr, nullptr, 0);
  std::unique_ptr<X509_EXTENSION, Deleter<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  return extension && X509_add_ext(cert, extension.get(), -1) == 1;
}

bool fill(X509* cert, const std::string& name, EVP_PKEY* key) {
  std::array<unsigned char, 16> serial{};
  if (RAND_bytes(serial.data(), serial.size()) != 1) return false;
  serial[0] &= 0x7f;
  std::unique_ptr<BIGNUM, Deleter<BN_free>> number(
      BN_bin2bn(serial.data(), serial.size(), nullptr));
  X509_NAME* subject = X509_get_subject_name(cert);
  return X509_set_version(cert, 2) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(cert)) != nullptr &&
         X509_gmtime_adj(X509_getm_notBefore(cert), -kClockSlackSeconds) != nullptr &&
         X509_gmtime_adj(X509_getm_notAfter(cert), kValidSeconds) != nullptr &&
         X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                                    0) == 1 &&
         X509_set_pubkey(cert, key) == 1;
}

Result<Pair> write(const Cert& cert, const Key& key) {
  const Bio cert_out(BIO_new(BIO_s_mem()));
  const Bio key_out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(cert_out.get(), cert.get()) != 1 ||
      PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) !=
          1)
    return failed("write a certificate");
  return Pair{text_of(cert_out), text_of(key_out)};
}

}  // namespace

std::string node_name(core::NodeId node) { return "node-" + std::to_string(node.value); }

Result<Pair> make_authority(const std::string& cluster) {
  const Key key(EVP_EC_gen("P-256"));
  const Cert cert(X509_new());
  // A common name has at most 64 characters; the name is for reading only.
  const std::string name = ("CA of cluster " + cluster).substr(0, 64);
  if (!key || !cert || !fill(cert.get(), name, key.get()) ||
      X509_set_issuer_name(cert.get(), X509_get_subject_name(cert.get())) != 1 ||
      !extend(cert.get(), cert.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !extend(cert.get(), cert.get(), NID_key_usage, "critical,keyCertSign") ||
      !extend(cert.get(), cert.get(), NID_subject_key_identifier, "hash") ||
      X509_sign(cert.get(), key.get(), EVP_sha256()) == 0)
    return failed("make an authority");
  return write(cert, key);
}

Result<Pair> issue(const Pair& authority, core::NodeId node, const std::string& address) {
  const Cert ca = read_cert(authority.cert);
  const Key ca_key = read_key(authority.key);
  if (!ca || !ca_key) return failed("read the cluster's authority");
  const Key key(EVP_EC_gen("P-256"));
  const Cert cert(X509_new());
  // The names are for etcd, whose members check the host that they connect to.
  const std::string names = "DNS:" + node_name(node) + ",DNS:localhost,IP:127.0.0.1" +
                            (address == "127.0.0.1" ? "" : ",IP:" + address);
  if (!key || !cert || !fill(cert.get(), node_name(node), key.get()) ||
      X509_set_issuer_name(cert.get(), X509_get_subject_name(ca.get())) != 1 ||
      !extend(cert.get(), ca.get(), NID_basic_constraints, "critical,CA:FALSE") ||
      !extend(cert.get(), ca.get(), NID_key_usage, "critical,digitalSignature") ||
      !extend(cert.get(), ca.get(), NID_ext_key_usage, "serverAuth,clientAuth") ||
      !extend(cert.get(), ca.get(), NID_subject_alt_name, names.c_str()) ||
      X509_sign(cert.get(), ca_key.get(), EVP_sha256()) == 0)
    return failed("issue a certificate");
  return write(cert, key);
}

Result<std::string> fingerprint(const std::string& cert_pem) {
  const Cert cert = read_cert(cert_pem);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int bytes = 0;
  if (!cert || X509_digest(cert.get(), EVP_sha256(), digest.data(), &bytes) != 1)
    return failed("read a certificate");
  return hex(digest.data(), bytes);
}

std::string sha256(const std::string& text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return hex(digest.data(), digest.size());
}

std::string random_hex(size_t bytes) {
  std::vector<unsigned char> data(bytes);
  if (RAND_bytes(data.data(), static_cast<int>(bytes)) != 1)
    throw std::runtime_error("the system's random generator failed");
  return hex(data.data(), bytes);
}

}  // namespace tls
