// What counts messages bring: one pass over a message's cells does all that is to be done with
// them.
//
// It takes the difference from the source's running counter, adds up rows, adds to the sums of all
// messages, and tells how far each row lies from what is expected of it. Sums are integers until
// somebody takes them out, now and then, for all messages at once.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/model/time.h"
#include "core/model/vector_kernel.h"

namespace eplbd {

class Arrivals {
 public:
  // Of rows of so many cells: experts, or GPUs.
  Arrivals(size_t layers, size_t columns);

  // Shares [layers, columns] of its layer's tokens that a message is expected to bring, as they are
  // when it comes. They outlive this. None: distances are not told.
  void expect(std::span<const float> shares) { expected_ = shares; }

  // One message: uint32 [layers, columns], little-endian, at any alignment. `last`: its source's
  // running counter [layers, columns], of which it is the next reading; empty: tokens as they are.
  // keep() or take_back() follows.
  void take(std::span<const std::byte> values, std::span<uint32_t> last);
  // The message counts, spread over so long a time. False: its cells are so large that they may not
  // fit into sums(), and are not in there.
  bool keep(Duration covered);
  void take_back();  // it does not

  // ---- Of the newest message ----
  std::span<const uint32_t> counts() const { return counts_; }              // [layers, columns]
  std::span<const uint64_t> layer_tokens() const { return layer_tokens_; }  // [layers]
  // Squared distances from what is expected of as many tokens [layers]. Zero: nothing is.
  std::span<const double> layer_squares() const { return layer_squares_; }
  uint32_t most() const { return most_; }  // of a cell

  // ---- Of all messages that were kept since clear() ----
  bool empty() const { return longest_ == Duration{-1}; }
  bool full() const { return room_ < uint32_t{1} << 31; }   // clear() before the next message
  std::span<const uint32_t> sums() const { return sums_; }  // [layers, columns]
  Duration covered() const;                      // that their tokens are spread over, on average
  Duration longest() const { return longest_; }  // that a message covers
  void clear();

 private:
  size_t layers_;
  std::span<const float> expected_;
  AlignedVector<uint32_t> counts_;
  std::vector<uint64_t> layer_tokens_;
  std::vector<double> layer_squares_;
  uint32_t most_ = 0;
  AlignedVector<uint32_t> sums_;
  uint32_t room_;  // what every sum can still take
  double tokens_ = 0;
  double token_seconds_ = 0;  // tokens x the seconds they cover
  Duration longest_{-1};
};

}  // namespace eplbd
