// The path of a UNIX socket that is to be bound: whose it is now.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace eplbd {

// Makes room for a socket at `path`: what a process that was killed left there is removed. Throws
// std::runtime_error when somebody listens there, or when it is no socket: that is not ours.
void claim_unix_path(const std::string& path);

// Which socket file a path names, to remove it only as long as it is that one.
struct UnixPathId {
  unsigned long device = 0;
  unsigned long inode = 0;
  bool operator==(const UnixPathId&) const = default;
};
UnixPathId unix_path_id(const std::string& path);  // zeros: nothing there

}  // namespace eplbd
