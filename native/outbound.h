// SPDX-License-Identifier: Apache-2.0
// From the TUN device to the UDP socket: cut, seal, send; or hold.
#pragma once

#include "handoff.h"
#include "hold.h"
#include "io_tun.h"
#include "io_udp.h"
#include "segment.h"
#include "table.h"
#include "worker.h"

struct outbound {
  struct worker *worker;
  struct sa_table *table;
  struct handoff *handoff;
  uint8_t lane;
  struct hold *hold;
  struct tun tun;
  struct udp_out udp;
  uint32_t last_spi; // of the packet before
  uint8_t *buffer; // TUN_BUFFER bytes
  uint8_t *scratch; // SCRATCH bytes, for what does not fit
  // Complaints about that, in this second.
  uint64_t complaint_second;
  unsigned complaints;
};

// False when memory ran out.
bool outbound_init(struct outbound *outbound, struct worker *worker, struct sa_table *table, struct hold *hold,
                   const struct tun *tun, int udp_fd);
// One packet as the TUN device gave it, virtio header first: queues it sealed, hands it to the thread that has its SA, holds it,
// or drops it.
void outbound_packet(struct outbound *outbound, const uint8_t *data, size_t length);
// What other threads have handed over, in their order. Returns whether there was anything.
bool outbound_handed(struct outbound *outbound);
// Publishes an outbound SA and sends, before anything else with it, what its pairs were held for. Control thread, with an
// `outbound` of its own.
void outbound_install(struct outbound *outbound, struct sa *sa);
// Puts what the pair was held for back into the TUN device. Control thread.
void outbound_give_back(struct outbound *outbound, const struct pair *pair);
// The thread; ends the process when the device is gone.
void *outbound_run(void *outbound);
