// What operators may ask of a running daemon, as HTTP/1.1 over the control socket (UNIX, mode 0660,
// group eplbd) and never over TCP. docs/control.md has examples.
//
// Everything the TCP address answers (GET /metrics, /healthz, /api/v1/status, ...) is answered here
// too. On top of that, POST with a JSON object as body (an empty body is an empty object):
//
//   POST /v1/rebalance  {"dry_run": bool}        plan and publish now, without the trigger's rules
//   POST /v1/pause      {"seconds": number}      publish nothing for so long; without: until resume
//   POST /v1/resume     {}                       ends a pause, and the hold of a rollback or import
//   POST /v1/mode       {"mode": "observe"|"shadow"|"active"|null}   null: the configuration's
//   POST /v1/rollback   {"version": integer}     an earlier placement; without: the one before
//   POST /v1/import     {"physical_to_logical_map": [[...], ...]}    [layers, slots]
//   POST /v1/resize     {"gpus": integer, "slots": integer}   the group grew or shrank to these
//                       these three take "dry_run", too
//   POST /v1/gpu        {"gpu": integer, "action": "drain"|"lost"|"restore"}
//   POST /v1/reload     {}                       the configuration file again
//   GET  /v1/counts                              running totals, for a recorder: docs/control.md
//   GET  /v1/messages?after=N                    what workers send, one by one: docs/control.md
//
// Answered after it took effect (an update: after it was saved and published):
//
//   200 {"done": true,  "detail": "..."}     done
//   409 {"done": false, "detail": "..."}     refused, and why: nothing changed
//   400 {"done": false, "detail": "..."}     not understood;  404, 405: no such thing here
//   503 {"done": false, "detail": "..."}     could not be saved: nothing changed
//
// "warnings": sentences about what who ordered it may not have thought of. An answer about a
// placement has also "term", "version" (of the new one; a dry run's is not taken), "reason",
// "moves", "worst_gpu_moves", "layers_changed", "imbalance_before", "imbalance_after" and, of a dry
// run, "physical_to_logical_map".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "daemon/deployment.h"
#include "daemon/net/http_server.h"

namespace eplbd {

class Control {
 public:
  // `reload` reads the file again, and tells why it was refused, or an empty string.
  using Reloaded = std::function<void(const std::string& refused)>;
  Control(Deployment& deployment, std::function<void(Reloaded)> reload);

  // True when the path is an order's: it is answered, now or later.
  bool handle(const HttpRequest& request, const HttpRespond& respond);

 private:
  bool dispatch(const HttpRequest& request, const HttpRespond& respond);
  HttpResponse counts();
  HttpResponse messages(const HttpRequest& request);
  void order_gpu(const HttpRequest& request, const HttpRespond& respond);
  void reload(const HttpRequest& request, const HttpRespond& respond);

  Deployment& deployment_;
  std::function<void(Reloaded)> reload_;
};

}  // namespace eplbd
