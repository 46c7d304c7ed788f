// SPDX-License-Identifier: Apache-2.0
#include "daemon/membership.h"

#include <utility>  // before Asio: Boost 1.74 with C++20 forgets it

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <optional>

#include "daemon/deployment.h"
#include "daemon/etcd/election.h"
#include "daemon/log.h"

namespace eplbd {

struct Membership::Impl {
  Impl(boost::asio::io_context& io, Deployment& served, std::string own_name)
      : deployment(served), name(std::move(own_name)), lease_timer(io) {}

  ElectionHandler handler();
  void lead_until(TimePoint until);
  void warn(const std::string& why);

  Deployment& deployment;
  const std::string name;
  boost::asio::steady_timer lease_timer;
  bool elected = false;  // and not resigned since
  LogLimit trouble_log{std::chrono::seconds(10), 5};
  std::optional<Election> election;
};

// Whatever else holds the loop up: it asks for the time before it publishes, and this comes soon.
void Membership::Impl::lead_until(TimePoint until) {
  deployment.lead_until(until);
  lease_timer.expires_at(until);
  lease_timer.async_wait([this](const boost::system::error_code& error) {
    if (!error && elected) deployment.stand_by("its lease was not renewed in time");
  });
}

void Membership::Impl::warn(const std::string& why) {
  const auto left_out = trouble_log.admit(std::chrono::steady_clock::now());
  if (left_out) log(LogLevel::warning, why + *left_out);
}

ElectionHandler Membership::Impl::handler() {
  ElectionHandler handler;
  handler.won = [this](const Leadership& won) {
    elected = true;
    deployment.follow(name, "");
    lead_until(won.until);
    deployment.lead(won);
  };
  handler.renewed = [this](TimePoint until) {
    if (elected) lead_until(until);
  };
  handler.lost = [this](const std::string& why) {
    elected = false;
    deployment.lead_until(TimePoint{});
    if (!deployment.stands_by()) deployment.stand_by(why);
  };
  handler.followed = [this](const std::string& other) { deployment.follow(other, ""); };
  handler.changed = [this] { deployment.take_up_saved(); };
  handler.failed = [this](const std::string& why) {
    if (why.empty()) return deployment.follow(deployment.leader(), "");
    warn(why);
    deployment.follow("", why);  // who led may lead no longer
  };
  return handler;
}

Membership::Membership(boost::asio::io_context& io, const HaOptions& options,
                       Deployment& deployment, std::string name)
    : impl_(std::make_unique<Impl>(io, deployment, std::move(name))) {
  deployment.stand_by("until it is known who leads");
  deployment.when_standing_by([impl = impl_.get()] {
    if (std::exchange(impl->elected, false)) impl->election->resign();
  });
  impl_->election.emplace(io, options, deployment.name(), impl_->name, impl_->handler());
}

Membership::~Membership() = default;

}  // namespace eplbd
