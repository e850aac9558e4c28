// SPDX-License-Identifier: Apache-2.0
// The Internet checksum (RFC 1071) over native-endian words: sums run on, and are folded at the end. A sum covers an even
// number of bytes in every part but the last.
#pragma once

#include "common.h"

// Adds `length` bytes to a running sum.
extern uint64_t (*checksum_add)(const uint8_t *data, size_t length, uint64_t sum);
// Copies and adds in one pass.
extern uint64_t (*checksum_copy)(uint8_t *to, const uint8_t *from, size_t length, uint64_t sum);

// The plain versions, for the tests to compare with and for CPUs without AVX2.
uint64_t checksum_add_plain(const uint8_t *data, size_t length, uint64_t sum);
uint64_t checksum_copy_plain(uint8_t *to, const uint8_t *from, size_t length, uint64_t sum);

// The one's complement sum in 16 bits, ready to be complemented; native-endian like the sum.
static inline uint16_t checksum_fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

// For headers: a multiple of four bytes, few of them, not worth a call.
static inline uint64_t checksum_header(const uint8_t *data, size_t length, uint64_t sum) {
  for (size_t i = 0; i < length; i += 4) {
    uint32_t word;
    memcpy(&word, data + i, sizeof word);
    sum += word;
  }
  return sum;
}

// The pseudo-header's part: addresses (8 or 32 bytes standing together), protocol, transport length (RFC 9293 section
// 3.1, RFC 8200 section 8.1).
static inline uint64_t checksum_pseudo(const uint8_t *addresses, size_t length, uint8_t protocol, size_t transport) {
  return checksum_header(addresses, length, 0) + __builtin_bswap32(protocol) + __builtin_bswap32((uint32_t)transport);
}
