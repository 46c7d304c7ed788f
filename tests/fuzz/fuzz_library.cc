// libFuzzer: calls of the C library. Whatever the numbers are, a call answers or says what is wrong
// with them; what it answers is a map.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lib/eplb.h"

namespace {

// Numbers from the input, zeros behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  template <typename T>
  T raw() {
    T value{};
    const size_t taken = std::min(sizeof(T), size_);
    if (taken > 0) std::memcpy(&value, data_, taken);
    data_ += taken;
    size_ -= taken;
    return value;
  }
  // Mostly of a size that is allowed.
  int32_t small(int32_t most) {
    const auto byte = raw<uint8_t>();
    return byte > 250 ? raw<int32_t>() : byte % (most + 1);
  }
  bool empty() const { return size_ == 0; }

 private:
  const uint8_t* data_;
  size_t size_;
};

void expect(bool holds) {
  if (!holds) __builtin_trap();
}

bool answered(eplb_status status, const eplb_error& error) {
  expect(status != EPLB_INTERNAL && status != EPLB_OUT_OF_MEMORY);
  expect((status == EPLB_OK) == (error.message[0] == '\0'));
  return status == EPLB_OK;
}

struct Shape {
  eplb_topology topology;
  std::vector<double> loads;
  std::vector<uint32_t> counts;
  std::vector<int32_t> map, current, down;
};

// False where a shape is valid, but larger than a fuzzer likes.
bool read_shape(Input& input, Shape& shape) {
  eplb_topology_init(&shape.topology);
  eplb_topology& topology = shape.topology;
  topology.layers = input.small(3);
  topology.logical_experts = input.small(16);
  topology.gpus = input.small(8);
  const int32_t width = input.small(6);
  topology.slots = static_cast<int32_t>(uint32_t(width) * uint32_t(topology.gpus));
  topology.nodes = input.small(3);
  topology.groups = input.small(4);
  for (const int32_t size : {topology.layers, topology.logical_experts, topology.slots}) {
    if (size > 256) return false;
  }
  const auto cells = [&](int32_t columns) {
    return static_cast<size_t>(std::max(topology.layers, 1)) * std::max(columns, 1);
  };
  shape.loads.resize(cells(topology.logical_experts));
  shape.counts.resize(shape.loads.size());
  shape.map.resize(cells(topology.slots));
  shape.current.resize(shape.map.size());
  for (size_t i = 0; i < shape.loads.size(); ++i) {
    const auto byte = input.raw<uint8_t>();
    shape.loads[i] = byte == 255 ? input.raw<double>() : byte;
    shape.counts[i] = byte == 255 ? input.raw<uint32_t>() : byte * 100U;
  }
  for (int32_t& expert : shape.current) expert = input.small(16) - 1;
  shape.down = {input.small(7), input.small(7)};
  return true;
}

void solve(Input& input, Shape& shape) {
  eplb_solve_options options;
  eplb_solve_options_init(&options);
  options.policy = input.small(3);
  options.hierarchical = input.small(2);
  options.seed = input.raw<uint8_t>();
  if (input.raw<uint8_t>() % 2 == 1) options.current = shape.current.data();
  options.gpus_down = shape.down.data();
  options.gpus_down_count = input.raw<uint8_t>() % 3;
  options.max_moves = input.small(20);
  options.max_moves_per_gpu = input.small(5);
  if (input.raw<uint8_t>() % 4 == 0) options.settle = input.raw<double>();
  if (input.raw<uint8_t>() % 4 == 0) options.min_gain = input.raw<double>();

  eplb_error error;
  std::vector<int32_t> ranks(shape.map.size());
  eplb_solution solution;
  eplb_solution_init(&solution);
  const eplb_topology* const topology = &shape.topology;
  const double* const loads = shape.loads.data();
  int32_t* const map = shape.map.data();
  if (!answered(eplb_solve(topology, loads, &options, map, ranks.data(), &solution, &error), error))
    return;
  const int32_t width = solution.most_replicas;
  std::vector<int32_t> slots(shape.loads.size() * static_cast<size_t>(width));
  std::vector<int32_t> count(shape.loads.size());
  expect(eplb_replicas(topology, map, ranks.data(), width, slots.data(), count.data(), &error) ==
         EPLB_OK);
  expect(std::all_of(count.begin(), count.end(), [](int32_t n) { return n > 0; }));
  double imbalance = 0;
  expect(eplb_imbalance(topology, map, loads, nullptr, &imbalance, &error) == EPLB_OK);
  double bound = 0;
  expect(eplb_bound(topology, loads, &options, nullptr, &bound, &error) == EPLB_OK);
  // The bound is of placements without an expert twice on a GPU, which published policies make.
  if (eplb_check(topology, map, &error) == EPLB_OK) expect(imbalance >= bound * (1 - 1e-9));
}

void decide(Input& input, Shape& shape) {
  eplb_rebalancer_options options;
  eplb_rebalancer_options_init(&options);
  options.policy = input.small(3);
  if (input.raw<uint8_t>() % 2 == 1) options.current = shape.current.data();
  if (input.raw<uint8_t>() % 4 == 0) options.imbalance = input.raw<double>();
  if (input.raw<uint8_t>() % 4 == 0) options.half_life_seconds = input.raw<double>();
  if (input.raw<uint8_t>() % 4 == 0) options.max_moves = input.small(9);
  options.min_tokens_per_gpu_step = input.raw<uint8_t>() % 2;
  options.cooldown_seconds = input.raw<uint8_t>() % 2;
  eplb_error error;
  eplb_rebalancer* r = nullptr;
  double now = input.raw<uint8_t>();
  if (!answered(eplb_rebalancer_new(&shape.topology, &options, now, &r, &error), error)) return;
  eplb_decision decision;
  eplb_decision_init(&decision);
  for (int calls = 0; calls < 24 && !input.empty(); ++calls) {
    const auto byte = input.raw<uint8_t>();
    now = byte > 250 ? input.raw<double>() : now + byte / 50.0;
    switch (input.raw<uint8_t>() % 5) {
      case 0:
      case 1:
        std::rotate(shape.counts.begin(), shape.counts.begin() + 1, shape.counts.end());
        answered(eplb_rebalancer_add(r, shape.counts.data(), input.raw<uint8_t>() / 50.0,
                                     input.raw<uint8_t>(), now, &error),
                 error);
        break;
      case 2:
        answered(eplb_rebalancer_decide(r, now, &decision, shape.map.data(), &error), error);
        break;
      case 3:
        answered(eplb_rebalancer_applied(r, decision.id, now, &error), error);
        break;
      case 4:
        answered(eplb_rebalancer_adopt(r, shape.current.data(), now, &error), error);
        break;
    }
    answered(eplb_rebalancer_state(r, now, shape.map.data(), shape.loads.data(), &error), error);
  }
  eplb_rebalancer_free(r);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const bool one = input.raw<uint8_t>() % 2 == 0;
  Shape shape;
  if (!read_shape(input, shape)) return 0;
  one ? solve(input, shape) : decide(input, shape);
  return 0;
}
