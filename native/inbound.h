// SPDX-License-Identifier: Apache-2.0
// From the UDP socket to the TUN device: open, check, join, write.
#pragma once

#include "coalesce.h"
#include "handoff.h"
#include "io_tun.h"
#include "io_udp.h"
#include "table.h"
#include "worker.h"

#define KEEPALIVE 0xff // a NAT keepalive's one byte (RFC 3948 section 2.3)

struct inbound {
  struct worker *worker;
  struct sa_table *table;
  struct handoff *handoff;
  uint8_t lane;
  struct tun tun;
  struct udp_in udp;
  struct coalescer coalescer;
  uint8_t outer_tos; // DSCP and ECN of the outer packets that are being taken in
};

// False when memory ran out.
bool inbound_init(struct inbound *inbound, struct worker *worker, struct sa_table *table, const struct tun *tun,
                  int udp_fd);
// One datagram from the underlay. What it carried waits in the coalescer, in place, for inbound_flush; or it is handed to the
// thread that has its SA.
void inbound_datagram(struct inbound *inbound, uint8_t *data, size_t length, const struct underlay *from);
// The same for a message of the socket: datagrams of one sender and one size but for the last.
void inbound_message(struct inbound *inbound, const struct udp_received *received, const struct underlay *from);
// What other threads have handed over, in their order; written when this returns.
void inbound_handed(struct inbound *inbound);
// Writes what waits.
void inbound_flush(struct inbound *inbound);
// The thread.
void *inbound_run(void *inbound);
