// SPDX-License-Identifier: Apache-2.0
// Packets that came to another thread than the one that has their SA, on their way there: the kernel steers by the first
// packet of a message (UDP) or by addresses alone (TUN), which is nearly always right. A ring of bytes for each ordered pair of
// threads of one direction: one writer, one reader, no lock.
#pragma once

#include <stdatomic.h>

#include "common.h"

#define LANES_MAX 8 // threads of one direction; a power of two, as the number in use is

#define HANDOFF_RING (512u << 10) // bytes; the longest packet takes an eighth

// What goes with a packet from the underlay.
struct handoff_note {
  struct underlay from;
  uint8_t tos;
};

struct handoff_ring {
  _Alignas(CACHE_LINE) _Atomic uint64_t written;
  _Alignas(CACHE_LINE) _Atomic uint64_t read;
  uint64_t taken; // the reader's own: up to where it has looked
  uint8_t *bytes;
};

// One direction's rings.
struct handoff {
  unsigned lanes;
  int wake_fds[LANES_MAX];               // eventfds, one for each reader
  uint8_t dirty[LANES_MAX][CACHE_LINE];  // the writer's own: bit i of the first byte says that reader i has to be woken
  struct handoff_ring rings[LANES_MAX][LANES_MAX]; // by writer and reader
};

// False when memory ran out. With one lane there is nothing to hand over, and nothing is made.
bool handoff_init(struct handoff *handoff, unsigned lanes);
// Copies a packet into the ring from a lane to another. False when it is full. `note` may be NULL.
bool handoff_put(struct handoff *handoff, unsigned from, unsigned to, const uint8_t *data, size_t length,
                 const struct handoff_note *note);
// Wakes whom this lane has put something for since it last did.
void handoff_wake(struct handoff *handoff, unsigned from);
// The next packet from one lane to another, in place and fit to be changed; NULL when there is none. It stays until handoff_done.
uint8_t *handoff_next(struct handoff *handoff, unsigned from, unsigned to, size_t *length, struct handoff_note *note);
// Gives back the room of all that handoff_next gave.
void handoff_done(struct handoff *handoff, unsigned from, unsigned to);
// Sleeps until the descriptor can be read or somebody has put something for this lane.
void handoff_wait(struct handoff *handoff, unsigned lane, int fd);
