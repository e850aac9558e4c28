// SPDX-License-Identifier: Apache-2.0
// What packet threads tell the control thread of single packets: samples for drop and unknown-SPI events. One queue
// for each thread, one writer and one reader, bounded in rate and in length; the counters hold what it leaves out.
#pragma once

#include <stdatomic.h>

#include "common.h"
#include "stats.h"

#define REPORT_SLOTS 64
#define REPORT_SOURCES 64
#define REPORT_INTERVAL_MS 1000   // at most one drop event of a reason
#define UNKNOWN_SPI_INTERVAL_MS 200 // at most one unknown-SPI event of a sender
#define MOVED_INTERVAL_MS 100       // at most one of an SA
#define UNKNOWN_SPI_PER_SECOND 100  // and of all senders together

struct report {
  enum drop reason;
  uint16_t has; // DROP_HAS_…
  bool unknown_spi; // to be reported as that event as well
  bool moved;       // an inbound SA's packet came from elsewhere
  uint32_t spi;
  struct underlay from;
  struct pair pair;
};

struct reports {
  _Alignas(CACHE_LINE) _Atomic uint32_t written;
  _Alignas(CACHE_LINE) _Atomic uint32_t read;
  struct report slots[REPORT_SLOTS];
  // The writer's own: when it last reported what.
  uint64_t last_ms[DROP_COUNT];
  struct {
    uint64_t last_ms;
  } sources[REPORT_SOURCES];
  uint64_t second;
  unsigned in_second;
};

// Whether a drop of this reason should be reported now; the caller then fills a report. Packet thread.
bool report_due(struct reports *reports, enum drop reason, uint64_t now_ms);
// The same for an unknown SPI from this sender.
bool report_unknown_spi_due(struct reports *reports, const struct underlay *from, uint64_t now_ms);
// False when the queue is full. Packet thread.
bool report_push(struct reports *reports, const struct report *report);
// False when the queue is empty. Control thread.
bool report_pop(struct reports *reports, struct report *report);
