// process_*: this process as the kernel sees it, by the names that Prometheus clients use.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/labels.h>
#include <prometheus/metric_family.h>

#include <vector>

namespace eplbd {

// Reads /proc/self at each Collect(); what cannot be read is absent.
class ProcessMetrics : public prometheus::Collectable {
 public:
  explicit ProcessMetrics(const prometheus::Labels& labels);
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  std::vector<prometheus::ClientMetric::Label> labels_;
};

}  // namespace eplbd
