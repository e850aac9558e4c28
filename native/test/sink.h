// SPDX-License-Identifier: Apache-2.0
// Stands in for the kernel: what the engine sends to SINK_UDP or writes to SINK_TUN is kept in memory. The linker puts it
// before the C library's own (--wrap), so that the code under test is the real one down to the system call.
#pragma once

#include <linux/virtio_net.h>

#include "../common.h"

#define SINK_UDP 1000
#define SINK_TUN 1001
#define SINK_PACKETS 4096

struct sink_packet {
  uint8_t *data;
  size_t length;
  uint16_t segment; // of a message; 0 where it was sent without UDP_SEGMENT
  uint8_t tos;      // of the outer headers
};

struct sink {
  struct sink_packet packets[SINK_PACKETS];
  unsigned count;
  int fail_with;      // errno for messages with UDP_SEGMENT, 0 for none
  int fail_all_with;  // errno for everything
};

extern struct sink sent, written;

// Forgets everything and frees it.
void sink_clear(void);
