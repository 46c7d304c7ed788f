// The addresses of one host. The system's resolver takes as long as it likes and cannot be ended:
// it runs on a thread of its own, which whoever stops waiting leaves behind.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <string>
#include <vector>

#include "config/address.h"
#include "core/model/time.h"

namespace eplbd {

struct EtcdWaiting;

class HostLookup {
 public:
  explicit HostLookup(HostPort at);
  using Addresses = std::vector<boost::asio::ip::tcp::endpoint>;

  // As they are now; those that were found last where the resolver takes too long for who must
  // connect by the deadline. Throws EtcdError.
  Addresses find(EtcdWaiting& waiting, TimePoint deadline);
  bool is_name() const { return is_name_; }  // and no address

 private:
  struct Running;  // a lookup

  HostPort at_;
  bool is_name_ = false;
  Addresses last_;
  std::shared_ptr<Running> running_;
};

}  // namespace eplbd
