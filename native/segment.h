// SPDX-License-Identifier: Apache-2.0
// Cutting what the TUN device gives (packets up to 64 KiB with a virtio-net header that asks for segmentation or a checksum)
// into IP packets that stand alone on a wire. Pure functions on memory.
#pragma once

#include <linux/virtio_net.h>

#include "common.h"
#include "stats.h"

// Later than the headers of Debian 12 (Linux 6.2).
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

struct super {
  const uint8_t *packet;
  uint32_t length;
  uint8_t version;         // 4 or 6
  uint8_t gso;             // VIRTIO_NET_HDR_GSO_… without ECN
  bool checksum;           // the transport checksum is still to be computed
  uint16_t transport;      // offset of the transport header, where `gso` or `checksum`
  uint16_t checksum_field; // offset of its checksum from there
  uint32_t header;         // all headers together, repeated in every segment
  uint32_t payload;        // bytes of payload in a full segment
  uint32_t count;          // segments
  struct pair pair;        // local = source, remote = destination
};

// Understands one packet of the TUN device. DROP_NONE, or the reason why it cannot be carried.
enum drop segment_parse(struct super *super, const struct virtio_net_hdr *request, const uint8_t *packet, size_t length);

// Length of segment `index` as an IP packet.
static inline uint32_t segment_length(const struct super *s, uint32_t index) {
  if (s->gso == VIRTIO_NET_HDR_GSO_NONE) return s->length;
  uint32_t start = s->header + index * s->payload, rest = s->length - start;
  return s->header + (rest < s->payload ? rest : s->payload);
}

// Writes segment `index` to `to`: headers with lengths, identification, sequence number, flags and checksums mended.
// Returns its length.
uint32_t segment_write(const struct super *super, uint32_t index, uint8_t *to);
