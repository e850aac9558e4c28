// SPDX-License-Identifier: Apache-2.0
// The TUN device, with virtio-net headers: reads give what the kernel left unsegmented, writes take what we joined.
#pragma once

#include <linux/virtio_net.h>
#include <sys/types.h>

#include "coalesce.h"
#include "common.h"
#include "worker.h"

#define TUN_BUFFER (sizeof(struct virtio_net_hdr) + 65536)

struct tun {
  int fd;
  bool udp_offload; // UDP super-packets, both ways
  bool read_nowait; // the kernel takes RWF_NOWAIT on this fd
};

// Checks that the fd is a TUN device without packet information and with virtio headers, and turns on every offload that
// the kernel has. False with errno (EBADF: no such device).
bool tun_configure(struct tun *tun, int fd);
// Reads a packet with its virtio header. Sleeps until there is one if `wait`; otherwise -1 with EAGAIN.
ssize_t tun_read(struct tun *tun, uint8_t *buffer, bool wait);
// Writes one packet that was read, virtio header and all. False with errno.
bool tun_give_back(const struct tun *tun, uint8_t *packet, size_t length);
// Writes all bundles, counts, and empties the coalescer.
void tun_write(const struct tun *tun, struct coalescer *coalescer, struct worker *worker);
