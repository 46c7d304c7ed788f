// What every call of the C library does: takes the caller's structs apart, names what is wrong with
// them, and lets no exception out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/balance/balancer.h"
#include "core/model/placement.h"
#include "core/model/topology.h"
#include "lib/eplb.h"

namespace eplbd {

// A call that fails: what it returns, and what it says in eplb_error.
class CallError : public std::runtime_error {
 public:
  CallError(eplb_status status, std::string argument, const std::string& message)
      : std::runtime_error(message), status_(status), argument_(std::move(argument)) {}
  eplb_status status() const { return status_; }
  const std::string& argument() const { return argument_; }

 private:
  eplb_status status_;
  std::string argument_;
};

[[noreturn]] void reject(std::string argument, const std::string& message);

// Cuts `text` where a character of UTF-8 begins, so that it fits with its end.
template <size_t N>
void put_text(char (&out)[N], std::string_view text) {
  size_t size = std::min(text.size(), N - 1);
  while (size > 0 && size < text.size() && (text[size] & 0xC0) == 0x80) --size;
  std::memcpy(out, text.data(), size);
  std::memset(out + size, 0, N - size);
}

eplb_status fail(eplb_error* error, eplb_status status, std::string_view argument,
                 std::string_view message);

template <typename Work>
eplb_status guarded(eplb_error* error, Work work) noexcept {
  if (error) *error = {};
  try {
    work();
    return EPLB_OK;
  } catch (const CallError& e) {
    return fail(error, e.status(), e.argument(), e.what());
  } catch (const std::invalid_argument& e) {
    return fail(error, EPLB_IMPOSSIBLE, "", e.what());
  } catch (const std::bad_alloc&) {
    return fail(error, EPLB_OUT_OF_MEMORY, "", "out of memory");
  } catch (const std::exception& e) {
    return fail(error, EPLB_INTERNAL, "", e.what());
  } catch (...) {
    return fail(error, EPLB_INTERNAL, "", "an exception that is none");
  }
}

// The struct of a program that may have been built with an older or newer header: what it lacks
// has `fallback`'s value.
template <typename Struct>
Struct sized(const Struct* given, const Struct& fallback, const char* argument) {
  Struct copy = fallback;
  if (!given) return copy;
  if (given->struct_size < sizeof(given->struct_size) || given->struct_size > 4096) {
    reject(argument, "its struct_size is not set: call its _init function first");
  }
  std::memcpy(&copy, given, std::min(given->struct_size, sizeof(Struct)));
  return copy;
}

// Writes as much of it as the caller's struct has.
template <typename Struct>
void put_sized(Struct* out, Struct value, const char* argument) {
  if (!out) return;
  if (out->struct_size < sizeof(out->struct_size)) {
    reject(argument, "its struct_size is not set: call its _init function first");
  }
  value.struct_size = out->struct_size;
  std::memcpy(out, &value, std::min(out->struct_size, sizeof(Struct)));
}

Topology topology_of(const eplb_topology* topology);
BalancerOptions balancer_of(int32_t policy, int32_t hierarchical, uint64_t seed);
// [layers, logical_experts] at `loads`.
std::span<const double> loads_of(const Topology& topology, const double* loads);
// A map in force, which may be any: an expert without a slot, GPUs that hold nothing.
Placement placement_of(const Topology& topology, const int32_t* map, const char* argument);
// A count, at least 0.
void check_count(int64_t value, const char* argument);
void check_range(double value, double least, double most, const char* argument);
template <typename T>
void check_given(const T* pointer, const char* argument) {
  if (!pointer) reject(argument, "is NULL");
}

}  // namespace eplbd
