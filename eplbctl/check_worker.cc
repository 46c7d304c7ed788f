// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/check_worker.h"

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/model/time.h"
#include "eplbctl/stop_signal.h"
#include "eplbctl/text.h"

namespace eplbd {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr auto kAskEvery = std::chrono::milliseconds(200);

// What became of each sender's messages.
class Verdict {
 public:
  void add(const json& message) {
    const bool taken = message.at("taken");
    Sender& sender = senders_[message.at("sender")];
    sender.right = taken;
    ++(taken ? sender.taken : sender.dropped);
    counts_ |= taken && message.at("type") == "counts";
    state_ |= taken && message.at("type") == "state";
  }
  bool right() const {
    if (!counts_) return false;
    for (const auto& [name, sender] : senders_) {
      if (!sender.right) return false;
    }
    return true;
  }
  std::string text(const json& status) const {
    std::string text;
    for (const auto& [name, sender] : senders_) {
      text += format("{}: {} messages right, {} wrong{}\n", name, sender.taken, sender.dropped,
                     sender.right ? "" : ", the last one too");
    }
    if (senders_.empty()) {
      text = format(
          "nothing came: workers connect a PUB socket to {} and send three frames, the "
          "first is the topic {}; a message of another topic is not seen here\n",
          status.at("endpoints").at("counts").dump(), status.at("deployment").dump());
    } else if (!counts_) {
      text += "no counts came: without them there is nothing to balance by\n";
    } else if (!state_) {
      text +=
          "no state came: the daemon goes by what counts name; placements are applied once every "
          "source names them\n";
    }
    return text;
  }

 private:
  struct Sender {
    bool right = false;
    uint64_t taken = 0;
    uint64_t dropped = 0;
  };
  std::map<std::string, Sender> senders_;
  bool counts_ = false;
  bool state_ = false;
};

// For people: the first of each kind at once, then one a second of those that are like the last.
class Lines {
 public:
  void add(const json& message) {
    const std::string sender = message.at("sender");
    const std::string type =
        message.at("type").is_null() ? "" : message.at("type").get<std::string>() + ": ";
    const bool taken = message.at("taken");
    const std::string wrong = taken ? "" : message.at("detail").get<std::string>();
    Shown& shown = shown_[{sender, type}];
    const bool like_the_last = shown.taken == taken && shown.wrong == wrong;
    if (like_the_last && Clock::now() < shown.at + std::chrono::seconds(1)) {
      ++shown.more;
      return;
    }
    const bool some = like_the_last && shown.more > 0;
    std::cout << format("{} {:5} {}: {}{}{}\n", local_time(message.at("ts"), "%T"),
                        taken ? "right" : "WRONG", sender, type,
                        message.at("detail").get<std::string>(),
                        some ? format("; {} more like it", shown.more) : "")
              << std::flush;
    shown = {taken, wrong, Clock::now(), 0};
  }

 private:
  struct Shown {
    std::optional<bool> taken;  // nothing: none was shown yet
    std::string wrong;
    Clock::time_point at;
    uint64_t more = 0;
  };
  std::map<std::pair<std::string, std::string>, Shown> shown_;  // by sender and type
};

}  // namespace

int run_check_worker(const CheckWorkerOptions& options) {
  const DaemonClient daemon(options.daemon);
  stop_on_signals();
  Verdict verdict;
  Lines lines;
  uint64_t last = 0;
  const auto end = Clock::now() + from_seconds(options.for_seconds);
  while (true) {
    const json answer = daemon.get("/v1/messages?after=" + std::to_string(last));
    for (const json& message : answer.at("messages")) {
      last = message.at("number");
      verdict.add(message);
      if (options.json) {
        std::cout << message.dump() << std::endl;
      } else {
        lines.add(message);
      }
    }
    if (Clock::now() >= end ||
        !wait_until(std::min<Clock::time_point>(Clock::now() + kAskEvery, end)))
      break;
  }
  if (!options.json) std::cout << verdict.text(daemon.get("/api/v1/status"));
  return verdict.right() ? 0 : 1;
}

}  // namespace eplbd
