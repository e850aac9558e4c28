// SPDX-License-Identifier: Apache-2.0
// ESP in tunnel mode (RFC 4303) with AES-256-GCM, 16-byte ICV (RFC 4106) and 64-bit sequence numbers, on one packet in
// memory. No I/O, no allocation.
//
//   | SPI 4 | sequence, low half 4 | IV 8 | inner packet | padding 0…3 | pad length 1 | next header 1 | ICV 16 |
//   |<------- SA_HEADER, clear ---------->|<--------------- encrypted ------------------------------>|
#pragma once

#include "common.h"
#include "sa.h"

#define ESP_ICV 16
#define ESP_MIN (SA_HEADER + 4 + ESP_ICV) // no payload, padding to four bytes, trailer
#define ESP_MAX_OVERHEAD (SA_HEADER + 3 + 2 + ESP_ICV)
#define NEXT_HEADER_IP4 4
#define NEXT_HEADER_IP6 41
#define NEXT_HEADER_DUMMY 59

// Bytes that an inner packet of `inner` bytes has as an ESP packet.
static inline size_t esp_sealed_length(size_t inner) { return SA_HEADER + ((inner + 2 + 3) & ~(size_t)3) + ESP_ICV; }

// Makes an ESP packet around the inner packet that stands at packet + SA_HEADER, using up one sequence number; the
// caller has asked sa_admits(). `packet` has room for esp_sealed_length(inner).
void esp_seal(struct sa *sa, uint8_t *packet, size_t inner, uint8_t next_header);

struct esp_opened {
  uint8_t *inner; // within the packet
  size_t length;
  uint8_t version; // 4 or 6
};

// Opens an ESP packet of this SA in place: replay check, authentication, replay update, trailer, and the rule that the
// inner packet is what the SA is for. Everything but DROP_NONE means that `packet` now holds nothing of use.
enum drop esp_open(struct sa *sa, uint8_t *packet, size_t length, struct esp_opened *opened);
