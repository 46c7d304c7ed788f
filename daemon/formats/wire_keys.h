// Every key that any of our messages has: docs/wire.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace eplbd::key {

inline constexpr std::string_view kType = "type";
inline constexpr std::string_view kV = "v";
inline constexpr std::string_view kSource = "source";
inline constexpr std::string_view kEngine = "engine";
inline constexpr std::string_view kEpoch = "epoch";
inline constexpr std::string_view kSince = "since";
inline constexpr std::string_view kTs = "ts";
inline constexpr std::string_view kSteps = "steps";
inline constexpr std::string_view kTerm = "term";
inline constexpr std::string_view kVersion = "version";
inline constexpr std::string_view kKind = "kind";
inline constexpr std::string_view kScope = "scope";
inline constexpr std::string_view kCounts = "counts";
inline constexpr std::string_view kGpuTokens = "gpu_tokens";
inline constexpr std::string_view kStatus = "status";
inline constexpr std::string_view kLayersDone = "layers_done";
inline constexpr std::string_view kApplySeconds = "apply_seconds";
inline constexpr std::string_view kError = "error";
inline constexpr std::string_view kLayers = "layers";
inline constexpr std::string_view kLogicalExperts = "logical_experts";
inline constexpr std::string_view kSlots = "slots";
inline constexpr std::string_view kGpus = "gpus";
inline constexpr std::string_view kPhysicalToLogical = "physical_to_logical";
inline constexpr std::string_view kFeatures = "features";
inline constexpr std::string_view kBaseTerm = "base_term";
inline constexpr std::string_view kBaseVersion = "base_version";
inline constexpr std::string_view kChangedLayers = "changed_layers";
inline constexpr std::string_view kMoves = "moves";
inline constexpr std::string_view kGpusDown = "gpus_down";
inline constexpr std::string_view kImbalanceBefore = "imbalance_before";
inline constexpr std::string_view kImbalanceAfter = "imbalance_after";
inline constexpr std::string_view kReason = "reason";
inline constexpr std::string_view kMode = "mode";

}  // namespace eplbd::key

namespace eplbd {

// Of the features: a GPU of the group may hold nothing.
inline constexpr std::string_view kInactiveGpus = "inactive_gpus";

}  // namespace eplbd
