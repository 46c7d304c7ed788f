// libFuzzer: bytes of a state file. The first of them says whether to put a right header before the
// rest, as no mutation would find a checksum.
// SPDX-License-Identifier: Apache-2.0
#include <boost/crc.hpp>
#include <cstdint>
#include <cstring>
#include <string>

#include "daemon/store/state_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace eplbd;
  static const Topology topology{
      .layers = 2, .logical_experts = 4, .slots = 6, .gpus = 2, .layer_ids = {}, .gpu_speeds = {}};
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    boost::crc_32_type crc;
    crc.process_bytes(bytes.data(), bytes.size());
    const uint32_t format = 1;
    const uint32_t checksum = crc.checksum();
    const uint64_t length = bytes.size();
    std::string header = "eplbd-st" + std::string(16, '\0');
    std::memcpy(header.data() + 8, &format, sizeof(format));
    std::memcpy(header.data() + 12, &checksum, sizeof(checksum));
    std::memcpy(header.data() + 16, &length, sizeof(length));
    bytes = header + bytes;
  }
  const StateFileContent content = decode_state_file(bytes, "ds", topology);
  if (content.fault == StateFileFault::none) {
    // What is taken can be saved and taken again.
    const std::string saved = encode_state_file(content.state, "ds", topology);
    if (decode_state_file(saved, "ds", topology).fault != StateFileFault::none) __builtin_trap();
  }
  return 0;
}
