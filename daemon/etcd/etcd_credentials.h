// How a daemon shows etcd who it is, and knows etcd: a user's password, certificates. Files, which
// may be replaced while it runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "config/config.h"

namespace boost::asio::ssl {
class context;
}

namespace eplbd {

// Each throws std::runtime_error naming the key and the file that cannot be used.
std::string read_password(const HaOptions& options);  // empty: there is none
std::unique_ptr<boost::asio::ssl::context> read_certificates(const HaOptions& options);

}  // namespace eplbd
