// SPDX-License-Identifier: Apache-2.0
#include "eplbctl/traffic.h"

#include <algorithm>
#include <cmath>

namespace eplbd {
namespace {

constexpr int kDomains = 6;
constexpr double kSharedSigma = 0.8;  // of log popularity: what all domains have in common
constexpr double kDomainSigma = 0.4;  // and what each has of its own
constexpr double kDrift = 0.03;       // standard deviation of a logit's walk over a second
constexpr double kPull = 0.001;       // back to an even mix, a second
constexpr double kJumpSigma = 1.5;
constexpr double kJumpsPerSecond = 1.0 / 250;
constexpr double kVolume = 0.4;  // a step's tokens vary by up to this part

}  // namespace

DriftingMixture::DriftingMixture(const MixtureOptions& options)
    : options_(options), random_(options.seed), logits_(kDomains) {
  std::normal_distribution<float> normal;
  const size_t cells = static_cast<size_t>(options.layers) * options.experts;
  std::vector<float> shared(cells);
  for (float& value : shared) value = static_cast<float>(kSharedSigma) * normal(random_);
  popularity_.resize(kDomains * cells);
  for (size_t row = 0; row < popularity_.size(); row += options.experts) {
    float sum = 0;
    for (int32_t expert = 0; expert < options.experts; ++expert) {
      const float own = static_cast<float>(kDomainSigma) * normal(random_);
      sum += popularity_[row + expert] = std::exp(shared[(row + expert) % cells] + own);
    }
    for (int32_t expert = 0; expert < options.experts; ++expert) popularity_[row + expert] /= sum;
  }
  std::normal_distribution<double> start(0, 1);
  for (double& logit : logits_) logit = start(random_);
  mixed_.resize(options.experts);
}

void DriftingMixture::drift() {
  std::uniform_real_distribution<double> uniform;
  const bool jump = uniform(random_) < kJumpsPerSecond * options_.step_seconds;
  std::normal_distribution<double> walk(0, kDrift * std::sqrt(options_.step_seconds));
  std::normal_distribution<double> anew(0, kJumpSigma);
  for (double& logit : logits_) {
    logit = jump ? anew(random_) : logit * (1 - kPull * options_.step_seconds) + walk(random_);
  }
}

// Multinomial, as a chain of binomials.
void DriftingMixture::draw_layer(std::span<const float> popularity, int64_t tokens,
                                 std::span<uint32_t> counts) {
  double rest = 0;
  for (const float part : popularity) rest += part;
  for (size_t expert = 0; expert < counts.size(); ++expert) {
    const bool last = expert + 1 == counts.size();
    const double part = last ? 1 : std::min(1.0, popularity[expert] / std::max(rest, 1e-30));
    const int64_t drawn =
        tokens == 0 ? 0 : std::binomial_distribution<int64_t>(tokens, part)(random_);
    counts[expert] = static_cast<uint32_t>(drawn);
    tokens -= drawn;
    rest -= popularity[expert];
  }
}

void DriftingMixture::next(std::span<uint32_t> counts) {
  drift();
  const double highest = *std::max_element(logits_.begin(), logits_.end());
  std::vector<float> mix;
  for (const double logit : logits_) mix.push_back(static_cast<float>(std::exp(logit - highest)));
  std::uniform_real_distribution<double> volume(1 - kVolume, 1 + kVolume);
  const double expected = options_.tokens_per_second * options_.step_seconds * volume(random_);
  const int64_t tokens = std::llround(expected) * options_.top_k;

  const auto experts = static_cast<size_t>(options_.experts);
  const size_t cells = experts * options_.layers;
  for (size_t first = 0; first < cells; first += experts) {
    std::fill(mixed_.begin(), mixed_.end(), 0.0F);
    for (size_t domain = 0; domain < mix.size(); ++domain) {
      const float* row = popularity_.data() + domain * cells + first;
      for (size_t expert = 0; expert < experts; ++expert)
        mixed_[expert] += mix[domain] * row[expert];
    }
    draw_layer(mixed_, tokens, counts.subspan(first, experts));
  }
}

void TracePlayer::next(std::span<uint32_t> counts) {
  trace_.read_counts(next_, step_, counts);
  next_ = (next_ + 1) % trace_.steps();
}

}  // namespace eplbd
