// What the library says of itself.
// SPDX-License-Identifier: Apache-2.0
#include "lib/eplb.h"

const char* eplb_version(void) { return EPLB_LIBRARY_VERSION; }

const char* eplb_status_text(int32_t status) {
  switch (status) {
    case EPLB_OK:
      return "ok";
    case EPLB_INVALID_ARGUMENT:
      return "invalid argument";
    case EPLB_IMPOSSIBLE:
      return "no placement obeys what was asked for";
    case EPLB_OUT_OF_MEMORY:
      return "out of memory";
    case EPLB_INTERNAL:
      return "a fault of the library";
  }
  return "no status of this library";
}
