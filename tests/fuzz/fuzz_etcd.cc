// libFuzzer: what answers in etcd's place: a letter that says what it was asked, and the body. It
// is taken, or refused with one sentence, and what was taken is in bounds.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>

#include "core/model/utf8.h"
#include "daemon/etcd/etcd_json.h"
#include "daemon/etcd/etcd_store.h"

namespace {

using namespace eplbd;

void check(bool condition) {
  if (!condition) __builtin_trap();
}

void check_range(const EtcdRange& range) {
  check(range.revision >= 1);
  for (const EtcdKey& key : range.keys) {
    check(range.find(key.key) != nullptr);
    unpack_state(key.value);
  }
}

void read(char asked, const std::string& body) {
  switch (asked) {
    case 'a':
      return check(is_printable_utf8(token_in(body)));
    case 'g': {
      const EtcdLease lease = lease_in(body);
      return check(lease.id != 0 && lease.ttl >= std::chrono::seconds(1));
    }
    case 'k':
      return check(kept_alive_in(body).value_or(std::chrono::hours(1)) <= std::chrono::hours(1));
    case 'r':
      return check_range(range_in(body));
    case 't':
      return check_range(transacted_in(body).range);
    default:
      return check_refusal("kv/range", {400, body});
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    read(static_cast<char>(data[0]),
         std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  } catch (const EtcdError& error) {
    check(is_printable_utf8(error.what()) && std::string(error.what()).size() < 500);
  }
  return 0;
}
