// SPDX-License-Identifier: Apache-2.0
// Joining decrypted packets of one flow into a super-packet for one write to the TUN device: what the kernel's own GRO
// does for packets from a network card, by the same rules. Nothing is copied: a bundle is a list of pieces of the receive
// buffers. Pure functions on memory.
#pragma once

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "common.h"
#include "segment.h"

#define COALESCE_BUNDLES 32
#define COALESCE_SEGMENTS 64

struct bundle {
  struct virtio_net_hdr virtio;
  uint8_t *head;          // the first packet; its headers become the super-packet's
  uint16_t transport;     // offset of the transport header
  uint16_t header;        // all headers together
  uint8_t gso;            // VIRTIO_NET_HDR_GSO_…, or NONE for a packet that nothing can be joined to
  bool open;              // more may be joined
  uint16_t segment;       // payload of the first packet: that of all but the last
  uint32_t length;        // of the super-packet
  uint32_t next_sequence; // TCP: of the segment that may follow
  uint16_t last_id;       // IPv4: identification of the last packet
  unsigned count;         // packets
  struct iovec pieces[1 + COALESCE_SEGMENTS]; // the virtio header, the first packet, payloads
};

struct coalescer {
  bool udp; // the TUN device takes UDP super-packets
  unsigned count;
  struct bundle bundles[COALESCE_BUNDLES]; // in the order of their first packets
};

// Takes an IP packet whose length is that of its header's; it must stay where it is until the bundle is written.
// False, with nothing done, when all bundles are taken: write them first.
bool coalesce_add(struct coalescer *coalescer, uint8_t *packet, size_t length);

// Makes headers and virtio header fit what was joined. `pieces[0 … count]` are then one write to the TUN device.
void coalesce_finish(struct bundle *bundle);
