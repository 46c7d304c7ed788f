// SPDX-License-Identifier: Apache-2.0
#include "core/worker_report.h"

namespace eplbd {

std::string_view to_string(WorkerStatus status) {
  switch (status) {
    case WorkerStatus::idle:
      return "idle";
    case WorkerStatus::applying:
      return "applying";
    case WorkerStatus::applied:
      return "applied";
    case WorkerStatus::failed:
      return "failed";
    case WorkerStatus::refused:
      return "refused";
  }
  return "";
}

std::string_view to_string(RejectReason reason) {
  switch (reason) {
    case RejectReason::wrong_frames:
      return "wrong_frames";
    case RejectReason::wrong_topic:
      return "wrong_topic";
    case RejectReason::malformed:
      return "malformed";
    case RejectReason::missing_key:
      return "missing_key";
    case RejectReason::unknown_type:
      return "unknown_type";
    case RejectReason::wrong_version:
      return "wrong_version";
    case RejectReason::wrong_shape:
      return "wrong_shape";
    case RejectReason::bad_value:
      return "bad_value";
    case RejectReason::bad_timestamp:
      return "bad_timestamp";
    case RejectReason::wrong_engine:
      return "wrong_engine";
    case RejectReason::source_conflict:
      return "source_conflict";
    case RejectReason::scope_conflict:
      return "scope_conflict";
    case RejectReason::too_many_sources:
      return "too_many_sources";
    case RejectReason::unauthorized:
      return "unauthorized";
  }
  return "";
}

}  // namespace eplbd
