// SPDX-License-Identifier: GPL-2.0
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <string>

#include "tls/authority.h"

namespace http {

/// A context that shows `identity` and trusts its CA alone. Throws boost::system::system_error.
boost::asio::ssl::context make_context(const tls::Identity& identity);

/// The common name of the certificate that the other side has shown and that was verified.
std::string peer_name(SSL* ssl);

/// The fingerprint of the last certificate of the chain that the other side has shown.
std::string root_fingerprint(SSL* ssl);

}  // namespace http
