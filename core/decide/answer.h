// How a rule ends a decision.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "core/decide/decision.h"

namespace eplbd {

// A verdict, and a sentence why.
struct Answer {
  Verdict verdict;
  std::string detail;
};

// Of a rule; nothing: it lets the decision go on.
using Rule = std::optional<Answer>;

inline Decision answered(Decision decision, Answer answer) {
  decision.verdict = answer.verdict;
  decision.detail = std::move(answer.detail);
  return decision;
}

}  // namespace eplbd
