// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <string>

#include "core/id.h"
#include "core/result.h"

namespace tls {

using core::Result;

/// A certificate and its private key, PEM.
struct Pair {
  std::string cert;
  std::string key;
};

/// What a node shows to others and how it knows them: its own certificate, and the cluster's CA.
struct Identity {
  Pair own;
  std::string ca_cert;
};

/// The cluster's certificate authority: self-signed, P-256.
[[nodiscard]] Result<Pair> make_authority(const std::string& cluster);

/// A certificate for a node at an IPv4 address, as server and as client; its common name is
/// node_name(node).
[[nodiscard]] Result<Pair> issue(const Pair& authority, core::NodeId node,
                                 const std::string& address);

[[nodiscard]] std::string node_name(core::NodeId node);

/// SHA-256 of the certificate, 64 hexadecimal digits: what a join token pins.
[[nodiscard]] Result<std::string> fingerprint(const std::string& cert_pem);

/// SHA-256 of any text, in hexadecimal.
[[nodiscard]] std::string sha256(const std::string& text);

/// `bytes` from the system's generator, in hexadecimal.
[[nodiscard]] std::string random_hex(size_t bytes);

}  // namespace tls
