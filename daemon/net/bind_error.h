// What to do about an address that cannot be bound.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstring>
#include <string>

namespace eplbd {

inline std::string bind_error(const std::string& address, int error) {
  const char* advice = "";
  if (error == EADDRINUSE) {
    advice = ": another process has it. Is another eplbd running? Each needs addresses of its own";
  } else if (error == EADDRNOTAVAIL || error == ENODEV) {
    advice = ": no network interface of this machine is called or addressed so";
  } else if (error == EACCES) {
    advice = ": this user may not; ports below 1024 are root's";
  }
  return "cannot listen on " + address + ": " + std::strerror(error) + advice;
}

}  // namespace eplbd
