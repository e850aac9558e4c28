// SPDX-License-Identifier: Apache-2.0
#include "../checksum.h"

#include <string.h>

#include "check.h"

// RFC 1071 by its words: 16 bits at a time, big endian.
static uint16_t by_definition(const uint8_t *data, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; i++) sum += i % 2 == 0 ? (uint32_t)data[i] << 8 : data[i];
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

static void agrees(void) {
  static uint8_t data[4096], copy[4096];
  for (int i = 0; i < 4000; i++) {
    size_t length = random_below(2000), offset = random_below(64);
    random_bytes(data + offset, length);
    if (random_below(8) == 0) memset(data + offset, 0xff, length);
    uint16_t wanted = __builtin_bswap16(by_definition(data + offset, length));
    CHECK(checksum_fold(checksum_add_plain(data + offset, length, 0)) == wanted);
    CHECK(checksum_fold(checksum_add(data + offset, length, 0)) == wanted);
    memset(copy, 0, sizeof copy);
    CHECK(checksum_fold(checksum_copy(copy + 1, data + offset, length, 0)) == wanted);
    CHECK(memcmp(copy + 1, data + offset, length) == 0 && copy[length + 1] == 0 && copy[0] == 0);
    size_t half = length / 2 & ~(size_t)1;
    uint64_t sum = checksum_add(data + offset, half, 0);
    CHECK(checksum_fold(checksum_add(data + offset + half, length - half, sum)) == wanted);
  }
}

const struct test checksum_tests[] = {{"checksum: every version agrees with RFC 1071", agrees}, {0}};
