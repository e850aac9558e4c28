// SPDX-License-Identifier: Apache-2.0
// The octet of DSCP and ECN (RFC 2474, 3168): TOS of IPv4, traffic class of IPv6. An outer packet carries what the inner one
// has (RFC 4301 section 5.1.2.1: DSCP; RFC 6040 section 4.1: ECN, normal mode); on the way out of the tunnel the inner
// packet keeps its DSCP and learns of congestion (RFC 6040 section 4.2).
#pragma once

#include "common.h"

#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

static inline uint8_t tos_of(const uint8_t *packet) {
  return packet[0] >> 4 == 4 ? packet[1] : (uint8_t)(packet[0] << 4 | packet[1] >> 4);
}

static inline void tos_set_ecn(uint8_t *packet, uint8_t ecn) {
  if (packet[0] >> 4 == 6) {
    packet[1] = (uint8_t)((packet[1] & ~(ECN_MASK << 4)) | ecn << 4);
    return;
  }
  uint16_t old = load_be16(packet);
  packet[1] = (uint8_t)((packet[1] & ~ECN_MASK) | ecn);
  // RFC 1624 section 3, equation 3.
  uint32_t sum = (uint16_t)~load_be16(packet + 10) + (uint32_t)(uint16_t)~old + load_be16(packet);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  store_be16(packet + 10, (uint16_t)~sum);
}

// Tells an inner packet, an IP header at least, what its outer one went through (RFC 6040, figure 4). False where it has to
// be dropped: a router marked congestion on a packet whose sender cannot be told.
static inline bool ecn_arrived(uint8_t *packet, uint8_t outer) {
  outer &= ECN_MASK;
  if (LIKELY(outer == ECN_NOT_ECT)) return true;
  uint8_t inner = tos_of(packet) & ECN_MASK;
  if (inner == ECN_NOT_ECT) return outer != ECN_CE;
  if (outer == ECN_CE && inner != ECN_CE) tos_set_ecn(packet, ECN_CE);
  if (outer == ECN_ECT1 && inner == ECN_ECT0) tos_set_ecn(packet, ECN_ECT1);
  return true;
}
