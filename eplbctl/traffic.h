// What a fleet of workers routes: tokens of each logical expert, step after step.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "eplbctl/trace_file.h"

namespace eplbd {

class Traffic {
 public:
  virtual ~Traffic() = default;
  virtual int32_t layers() const = 0;
  virtual int32_t experts() const = 0;
  // Counts [layers, experts] of the next step.
  virtual void next(std::span<uint32_t> counts) = 0;
};

struct MixtureOptions {
  int32_t layers = 58;  // DeepSeek-V3's MoE layers
  int32_t experts = 256;
  uint64_t seed = 0;
  double step_seconds = 1;
  double tokens_per_second = 32768;  // each goes to top_k experts of every layer
  int32_t top_k = 8;
};

// Requests of several domains, each with experts of its own that are popular (log-normal, on top of
// popularity that all share). Their mix drifts as a random walk and sometimes jumps; a step's
// counts are drawn from it.
class DriftingMixture : public Traffic {
 public:
  explicit DriftingMixture(const MixtureOptions& options);
  int32_t layers() const override { return options_.layers; }
  int32_t experts() const override { return options_.experts; }
  void next(std::span<uint32_t> counts) override;

 private:
  void drift();
  void draw_layer(std::span<const float> popularity, int64_t tokens, std::span<uint32_t> counts);

  MixtureOptions options_;
  std::mt19937_64 random_;
  std::vector<float> popularity_;  // [domains, layers, experts], rows sum to 1
  std::vector<double> logits_;     // [domains]
  std::vector<float> mixed_;       // [experts] of one layer
};

// A trace, over and over.
class TracePlayer : public Traffic {
 public:
  explicit TracePlayer(const std::string& file) : trace_(file), step_(trace_.cells()) {}
  int32_t layers() const override { return trace_.layers(); }
  int32_t experts() const override { return trace_.experts(); }
  void next(std::span<uint32_t> counts) override;

 private:
  TraceFile trace_;
  std::vector<double> step_;
  int64_t next_ = 0;
};

}  // namespace eplbd
