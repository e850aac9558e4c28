// SPDX-License-Identifier: Apache-2.0
// What every thread that touches packets has of its own, and how it counts and reports a drop.
#pragma once

#include <pthread.h>

#include "common.h"
#include "rcu.h"
#include "report.h"
#include "sa.h"
#include "stats.h"

struct worker {
  struct rcu_reader reader;
  _Alignas(CACHE_LINE) struct counters counters;
  struct reports reports;
  uint64_t now_ms; // CLOCK_MONOTONIC_COARSE, as of this batch
  struct sa_notices *notices;
  struct rcu *rcu;
  pthread_t thread;
};

// What is known of a dropped packet; any may be NULL.
struct dropped {
  struct sa *sa;
  const struct underlay *from;
  const struct pair *pair;
};

void worker_init(struct worker *worker, struct rcu *rcu, struct sa_notices *notices);
// Refreshes `now_ms`.
void worker_clock(struct worker *worker);
// Counts `count` dropped packets, for their SA too, and reports them when the rate allows.
void worker_drop(struct worker *worker, enum drop reason, uint64_t count, const struct dropped *dropped);
// Counts a packet with an SPI that nothing has, and reports it at its own rate.
void worker_unknown_spi(struct worker *worker, uint32_t spi, const struct underlay *from);
// Says, at a bounded rate, that the newest packet of an inbound SA came from elsewhere.
void worker_moved(struct worker *worker, struct sa *sa, const struct underlay *from);
