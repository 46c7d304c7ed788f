// Flags, configuration, exit codes. Nothing else.
// SPDX-License-Identifier: Apache-2.0
#include <sysexits.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "config/config.h"
#include "daemon/daemon.h"
#include "daemon/log.h"
#include "daemon/store/state_file.h"
#include "daemon/version.h"

namespace {

struct Flags {
  std::string config;
  bool check_config = false;
  bool print_config = false;
  bool print_schema = false;
};

int serve(const eplbd::Config& config, const std::string& file) {
  eplbd::set_up_logging(config.log);
  std::signal(SIGPIPE, SIG_IGN);  // whoever read the log may go
  try {
    eplbd::Daemon(config, file).run();
    return EX_OK;
  } catch (const eplbd::StateHeldError& error) {
    eplbd::log(eplbd::LogLevel::error, error.what());
    return EX_TEMPFAIL;
  } catch (const eplbd::StateForeignError& error) {
    eplbd::log(eplbd::LogLevel::error, error.what());
    return EX_CONFIG;
  } catch (const eplbd::KeysError& error) {
    eplbd::log(eplbd::LogLevel::error, error.what());
    return EX_CONFIG;
  } catch (const std::exception& error) {
    eplbd::log(eplbd::LogLevel::error, error.what());
    return EXIT_FAILURE;
  }
}

int run(const Flags& flags) {
  if (flags.print_schema) {
    std::fputs(eplbd::config_schema().c_str(), stdout);
    return EX_OK;
  }
  eplbd::Config config;
  try {
    using eplbd::Require;
    config = eplbd::read_config(flags.config,
                                flags.check_config ? Require::usable : Require::everything);
  } catch (const std::exception& error) {
    if (flags.check_config || flags.print_config) {
      std::fprintf(stderr, "%s\n", error.what());
    } else {  // a service: an entry a problem, with the priority of an error
      eplbd::set_up_logging({});
      eplbd::log(eplbd::LogLevel::error, error.what());
    }
    return EX_CONFIG;
  }
  if (flags.print_config) {
    std::fputs(eplbd::print_config(config).c_str(), stdout);
    return EX_OK;
  }
  if (flags.check_config) {
    std::printf("%s: no problems\n", flags.config.c_str());
    return EX_OK;
  }
  return serve(config, flags.config);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("eplbd: expert-parallelism load balancer daemon. Documentation: eplbd(8)");
  Flags flags;
  app.add_option("--config", flags.config, "the configuration file, YAML")->type_name("FILE");
  app.add_flag("--check-config", flags.check_config,
               "print every problem of the configuration and exit: 78 when there is one, else 0");
  app.add_flag("--print-config", flags.print_config,
               "print the configuration that is in force, with defaults, and exit");
  app.add_flag("--print-schema", flags.print_schema,
               "print the JSON Schema of the configuration and exit");
  app.set_version_flag("--version", "eplbd " + std::string(eplbd::kProgramVersion));
  try {
    app.parse(argc, argv);
    if (flags.config.empty() && !flags.print_schema) throw CLI::RequiredError("--config");
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? EX_OK : EX_USAGE;
  }
  return run(flags);
}
