// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "core/id.h"
#include "core/result.h"
#include "tls/authority.h"

namespace tls {

enum class Side : uint8_t { client, server };

/// Mutual TLS on a connected TCP socket, whose keys the kernel then has: what is sent and received
/// on it from now on, by us or by the kernel itself, is encrypted on the wire. Returns who the
/// other side is. The socket's own timeouts limit the handshake.
///
/// TLS 1.2 with AES-GCM: OpenSSL 3.0 gives the kernel no receiving keys of TLS 1.3.
///
/// Code::invalid: the other side shows no certificate of this cluster; Code::storage: the kernel
/// takes no keys (module tls); Code::unknown: the connection broke.
[[nodiscard]] Result<core::NodeId> secure(int fd, Side side, const Identity& identity);

}  // namespace tls
