// SPDX-License-Identifier: Apache-2.0
// Which of an engine's threads a packet is for. The kernel is told the same by bpf/steer.bpf.c; where it steers otherwise the
// packet is handed over, so that only speed depends on the two agreeing.
#pragma once

#include "common.h"

#define STEER_LANE_BITS(spi) ((spi) >> 30)

// The thread of the node that chose an SPI for packets with it. Who chooses SPIs (src/tunnel/spi-pool.ts) says in the two
// highest bits how many of the lowest are the thread; anybody else's SPIs say something too, which does no harm.
static inline unsigned steer_spi(uint32_t spi) { return spi & ((1u << STEER_LANE_BITS(spi)) - 1); }

// The thread that seals a pair's packets, before it is taken modulo the number of threads: from the last byte of each address.
// Both families' addresses of a pod end in the same one (src/endpoint/ipam.ts), so the two pairs of an SA, which count in one
// sequence, come to one thread.
static inline unsigned steer_pair(const struct pair *pair) {
  uint32_t local = (uint32_t)(pair->local.word[1] >> 56), remote = (uint32_t)(pair->remote.word[1] >> 56);
  return ((local << 8 | remote) * 0x9e3779b1u) >> 24;
}
