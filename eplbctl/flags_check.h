// Flags whose help says what they take, and checks of values that say what would be right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/duration.h"
#include "core/model/names.h"
#include "eplbctl/errors.h"
#include "eplbctl/flags.h"
#include "eplbctl/shape.h"

namespace eplbd {

inline CLI::Validator in_range(double least,
                               double most = std::numeric_limits<double>::infinity()) {
  const auto check = [least, most](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && value >= least && value <= most) return {};
    const std::string limits =
        most < 1e300 ? fmt::format("from {} to {}", least, most) : fmt::format("from {} on", least);
    return "must be a number " + limits + ", is \"" + text + "\"";
  };
  return CLI::Validator(check, "");
}

// A flag, or a word in place, that takes a path.
inline CLI::Option* add_path(CLI::App& command, const std::string& name, std::string& path,
                             const std::string& help) {
  return command.add_option(name, path, help)->type_name(name.starts_with('-') ? "PATH" : "");
}

// Makes seconds of it; a unit must be given, as in the configuration.
inline CLI::Validator duration() {
  CLI::Validator validator;
  validator.operation([](std::string& text) -> std::string {
    Duration value{};
    const bool known = !parse_duration(text, value);
    if (!known || value < std::chrono::milliseconds(1) || value > std::chrono::hours(24 * 30)) {
      return "must be a duration with its unit, from 1ms to 30d, as 90s, 5m or 2h, is \"" + text +
             "\"";
    }
    text = std::to_string(to_seconds(value));
    return {};
  });
  return validator;
}

// The same of a flag whose number alone has always meant seconds: 3, 3s and 3000ms are one.
inline CLI::Option* add_seconds(CLI::App& command, const std::string& flag, double& seconds,
                                const std::string& help, double least, double most) {
  CLI::Validator validator;
  validator.operation([least, most](std::string& text) -> std::string {
    Duration value{};
    char* end = nullptr;
    double number = std::strtod(text.c_str(), &end);
    bool known = !text.empty() && *end == '\0';
    if (!known && !parse_duration(text, value)) {
      known = true;
      number = to_seconds(value);
    }
    if (!known || !(number >= least && number <= most)) {
      return fmt::format("must be a duration, as 500ms, 90s or 5m, from {}s to {}s, is \"{}\"",
                         least, most, text);
    }
    text = fmt::format("{}", number);
    return {};
  });
  return command.add_option(flag, seconds, help)->transform(validator)->type_name("DURATION");
}

// A file whose name says what it is: one of these suffixes, or none.
inline CLI::Validator has_suffix(std::vector<std::string> known) {
  const auto check = [known = std::move(known)](const std::string& file) -> std::string {
    const std::string suffix = std::filesystem::path(file).extension().string();
    if (suffix.empty() || std::find(known.begin(), known.end(), suffix) != known.end()) return {};
    return fmt::format("must end in {}, is \"{}\"", fmt::join(known, " or "), file);
  };
  return CLI::Validator(check, "");
}

// What stands before a command is the command's, or an error: no flag is ignored.
inline void take_leading(const CLI::App& before, CLI::App& command) {
  for (const CLI::Option* given : before.get_options()) {
    if (given->count() == 0) continue;
    CLI::Option* own = command.get_option_no_throw(given->get_name());
    if (own == nullptr) throw UsageError("takes no " + given->get_name());
    if (own->count() > 0) throw UsageError(given->get_name() + " is given twice");
    own->add_result(given->results());
    own->run_callback();
  }
}

// One of an enum's names, into a T or an optional of one; --help and errors show the names alone.
template <Named Enum, typename Value>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, Value& value,
                        const std::string& help) {
  std::string list;
  for (const std::string_view name : names(Enum{})) {
    list += (list.empty() ? "" : "|") + std::string(name);
  }
  const auto parse = [&value, list, flag](const CLI::results_t& given) {
    const std::optional<Enum> chosen = from_name<Enum>(given.front());
    if (!chosen) throw CLI::ValidationError(flag, "\"" + given.front() + "\" is none of " + list);
    value = *chosen;
    return true;
  };
  return command.add_option(flag, parse, help)->type_name(list);
}

// What a command runs, with the flags that stand before it; `check` looks at them together.
template <typename Options>
void on_parsed(
    CLI::App& app, CLI::App* command, Action& action, std::shared_ptr<Options> options,
    int (*run)(const Options&), std::function<void()> check = [] {}) {
  command->callback(
      [&app, command, &action, options = std::move(options), run, check = std::move(check)] {
        action = [&app, command, options, run, check] {
          take_leading(app, *command);
          check();
          return run(*options);
        };
      });
}

// --gpus, which the others need.
inline CLI::Option* add_gpus(CLI::App& command, ShapeOptions& shape) {
  CLI::Option* gpus =
      command.add_option("--gpus", shape.gpus, "GPUs (expert-parallel ranks)")->check(in_range(1));
  command.add_option("--nodes", shape.nodes, "nodes; consecutive GPUs form one")
      ->check(in_range(1))
      ->capture_default_str()
      ->needs(gpus);
  command.add_option("--groups", shape.groups, "expert groups (group-limited routing)")
      ->check(in_range(1))
      ->capture_default_str()
      ->needs(gpus);
  command.add_option("--gpu-speeds", shape.gpu_speeds, "relative speeds, one a GPU: 1,1,0.8,...")
      ->delimiter(',')
      ->check(in_range(1e-6, 1e6))
      ->needs(gpus);
  return gpus;
}

// The same and --slots; who gives one of the two gives the other.
inline CLI::Option* add_shape(CLI::App& command, ShapeOptions& shape) {
  CLI::Option* gpus = add_gpus(command, shape);
  CLI::Option* slots =
      command.add_option("--slots", shape.slots, "physical experts of a layer, over all GPUs")
          ->check(in_range(1));
  slots->needs(gpus);
  gpus->needs(slots);
  return gpus;
}

}  // namespace eplbd
