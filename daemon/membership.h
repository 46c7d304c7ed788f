// One daemon's part among those of a deployment: what the election says goes to the deployment.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "config/config.h"

namespace boost::asio {
class io_context;
}

namespace eplbd {

class Deployment;

class Membership {
 public:
  // The deployment stands by from here on, until this daemon is to lead it. `name`: what the others
  // call this daemon. Throws std::runtime_error naming the file that cannot be used.
  Membership(boost::asio::io_context& io, const HaOptions& options, Deployment& deployment,
             std::string name);
  ~Membership();  // another may lead at once
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace eplbd
