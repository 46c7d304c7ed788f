// SPDX-License-Identifier: Apache-2.0
#include "daemon/store/state_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

namespace eplbd {
namespace {

namespace fs = std::filesystem;

constexpr char kNewest[] = "state";
constexpr char kPrevious[] = "state.previous";
constexpr char kBeingWritten[] = "state.new";

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void fail(const std::string& step, const std::string& path) {
  throw std::runtime_error(step + " " + path + ": " + std::strerror(errno));
}

void write_synced(const std::string& path, std::string_view bytes) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
  if (file.get() < 0) fail("cannot create", path);
  for (size_t written = 0; written < bytes.size();) {
    const ssize_t n = write(file.get(), bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot write", path);
    written += static_cast<size_t>(n);
  }
  if (fsync(file.get()) != 0) fail("cannot sync", path);
}

void sync_directory(const std::string& path) {
  const Descriptor directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0 || fsync(directory.get()) != 0) fail("cannot sync", path);
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    fail("cannot read", path);
  }
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (file.bad()) fail("cannot read", path);
  return bytes.str();
}

}  // namespace

StateFile::StateFile(const std::string& directory, std::string deployment, const Topology& topology)
    : directory_(directory), deployment_(std::move(deployment)), topology_(topology) {
  std::error_code error;
  const bool created = fs::create_directories(directory_, error);
  if (error) {
    throw std::runtime_error("cannot create the state directory " + directory_ + ": " +
                             error.message());
  }
  if (created) {
    fs::permissions(directory_, fs::perms(0750), error);
  }
  const std::string path = directory_ + "/lock";
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  if (lock_ < 0) fail("cannot open", path);
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    close(lock_);
    errno = reason;
    if (reason != EWOULDBLOCK) fail("cannot lock", path);
    throw StateHeldError("another eplbd holds the state directory " + directory_ +
                         ": stop it, or give this one a state.directory of its own");
  }
}

StateFile::~StateFile() { close(lock_); }

void StateFile::set_aside(const std::string& name, const StateFileContent& content,
                          Recovered& recovered) {
  const bool damaged = content.fault == StateFileFault::damaged;
  const std::string path = directory_ + "/" + name;
  std::string kept;
  for (int attempt = 0; kept.empty() || fs::exists(kept); ++attempt) {
    kept = path + (damaged ? ".damaged-" : ".other-shape-") + std::to_string(std::time(nullptr)) +
           "-" + std::to_string(attempt);
  }
  std::error_code error;
  fs::rename(path, kept, error);
  recovered.notes.push_back(path + ": " + content.detail + "; " +
                            (error ? "cannot be renamed: " + error.message() : "kept as " + kept));
}

std::optional<RebalancerState> StateFile::read_generation(const std::string& name,
                                                          Recovered& recovered) {
  const auto bytes = read_file(directory_ + "/" + name);
  if (!bytes) return std::nullopt;
  StateFileContent content = decode_state_file(*bytes, deployment_, topology_);
  switch (content.fault) {
    case StateFileFault::none:
      return std::move(content.state);
    case StateFileFault::other_deployment:
    case StateFileFault::newer_format:
      throw StateForeignError("cannot use the state directory " + directory_ + ": " +
                              content.detail + ". Set state.directory, or move " + directory_ +
                              "/" + name + " away");
    case StateFileFault::other_shape:
    case StateFileFault::damaged:
      break;
  }
  set_aside(name, content, recovered);
  return std::nullopt;
}

Recovered StateFile::load() {
  Recovered recovered;
  const bool newest = fs::exists(directory_ + "/" + kNewest);
  // A save ends between its two renames, if it does, with the newest still under its first name.
  recovered.state = read_generation(newest ? kNewest : kBeingWritten, recovered);
  if (recovered.state) {
    std::error_code error;  // where it cannot be renamed, nothing can be saved over it either
    if (!newest) fs::rename(directory_ + "/" + kBeingWritten, directory_ + "/" + kNewest, error);
    return recovered;
  }
  recovered.state = read_generation(kPrevious, recovered);
  if (recovered.state) {
    recovered.state->placements.new_term = true;
    recovered.notes.push_back(directory_ + ": went on with the generation before the newest");
  }
  return recovered;
}

void StateFile::save(const RebalancerState& state) {
  const std::string newest = directory_ + "/" + kNewest;
  const std::string previous = directory_ + "/" + kPrevious;
  const std::string being_written = directory_ + "/" + kBeingWritten;
  const std::string bytes = encode_state_file(state, deployment_, topology_);
  write_synced(being_written, bytes);
  if (state.placements.highest.term != saved_term_) {
    // Whichever generation is lost, the other one knows that this term was given out.
    if (rename(being_written.c_str(), previous.c_str()) != 0) fail("cannot rename", being_written);
    write_synced(being_written, bytes);
  } else if (rename(newest.c_str(), previous.c_str()) != 0 && errno != ENOENT) {
    fail("cannot rename", newest);
  }
  if (rename(being_written.c_str(), newest.c_str()) != 0) fail("cannot rename", being_written);
  sync_directory(directory_);
  saved_term_ = state.placements.highest.term;
}

}  // namespace eplbd
