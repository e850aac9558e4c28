// SPDX-License-Identifier: Apache-2.0
// Packets that wait for a tunnel: bounded for each pair, in total, and in time. Off the hot path, so under one lock; the
// lock also orders the installing of an outbound SA against packets that just missed it.
#pragma once

#include <pthread.h>

#include "common.h"
#include "stats.h"
#include "worker.h"

#define HOLD_BUCKETS 4096

struct hold_limits {
  unsigned packets_per_pair;
  size_t bytes_per_pair;
  size_t bytes_total; // with what it costs to keep them
  uint64_t timeout_ms;
};

// A packet as it was read: virtio header and all.
struct held_packet {
  struct held_packet *next;
  size_t length;
  uint8_t data[];
};

struct held_pair {
  struct pair pair;
  struct held_pair *bucket_next;
  struct held_pair *older, *newer; // by deadline, which is by arrival of the first packet
  struct held_packet *first, **last;
  unsigned packets;
  size_t bytes;
  uint64_t deadline_ms;
  bool announced; // the agent was told on the connection there is now
};

struct hold {
  pthread_mutex_t lock;
  struct hold_limits limits;
  uint64_t seed;
  struct held_pair *buckets[HOLD_BUCKETS];
  struct held_pair *oldest, *newest;
  size_t bytes_total;
  uint64_t pair_count, packet_count, packet_bytes;
  bool news; // some pair is not announced
};

void hold_init(struct hold *hold, const struct hold_limits *limits, uint64_t seed);
// All below want the lock held.
// Keeps a copy of a packet. DROP_NONE, or why not; `*fresh` says that its pair is new and wants an acquire.
enum drop hold_add(struct hold *hold, const struct pair *pair, const uint8_t *data, size_t length, uint64_t now_ms,
                   bool *fresh);
// Takes a pair out, NULL if nothing of it waits. The caller goes through its packets, then frees it.
struct held_pair *hold_take(struct hold *hold, const struct pair *pair);
// Takes out the oldest pair whose time is over, NULL if there is none.
struct held_pair *hold_take_expired(struct hold *hold, uint64_t now_ms);
void hold_free(struct held_pair *pair);
