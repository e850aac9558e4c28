// SPDX-License-Identifier: Apache-2.0
// A test bed: an engine without threads whose far ends are the sink, packets to feed it, and SAs between it and itself.
#pragma once

#include <linux/virtio_net.h>

#include "../engine.h"
#include "sink.h"

// The pair that packets made here are between, seen from the sender.
extern const struct pair bed_pair4, bed_pair6;

// One engine for the whole process, made at the first call, emptied at every further one.
struct engine *bed_engine(void);
// The same with so many lanes, one for each number.
struct engine *bed_engine_of(unsigned lanes);
// A new SA with a fixed key for its SPI, of both pairs, not published. The inbound one opens what the outbound one seals.
struct sa *bed_sa(uint8_t direction, uint32_t spi);
struct sa *bed_sa_limited(uint8_t direction, uint32_t spi, const struct wire_lifetimes *limits);

struct bed_packet {
  uint8_t version;       // 4 or 6
  uint8_t protocol;      // PROTOCOL_TCP, PROTOCOL_UDP, or anything else for bytes without a transport header
  uint16_t sport, dport;
  uint32_t sequence, acknowledgement;
  uint8_t flags;
  uint16_t window, id;
  bool may_fragment;
  uint8_t options; // bytes of TCP options, a multiple of four
  uint32_t payload;
  uint8_t fill; // payload byte i is fill + i
};

// Writes a whole packet with right checksums from bed_pair's local to its remote; returns its length.
size_t bed_build(uint8_t *to, const struct bed_packet *packet);
// Whether IP and transport checksums of a packet are right.
bool bed_checksums_right(const uint8_t *packet, size_t length);
// The same packet as the TUN device gives it when it is left to segment `mss` bytes of payload each.
struct virtio_net_hdr bed_gso(uint8_t *packet, size_t length, uint16_t mss);
