// SPDX-License-Identifier: Apache-2.0
#include "worker.h"

#include <time.h>
#include <unistd.h>

void worker_init(struct worker *worker, struct rcu *rcu, struct sa_notices *notices) {
  memset(worker, 0, sizeof *worker);
  worker->rcu = rcu;
  worker->notices = notices;
  rcu_register(rcu, &worker->reader);
  worker_clock(worker);
}

void worker_clock(struct worker *worker) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  worker->now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void push(struct worker *worker, const struct report *report) {
  uint64_t one = 1;
  if (!report_push(&worker->reports, report))
    COUNT(worker->counters.reports_lost, 1);
  else if (write(worker->notices->wake_fd, &one, sizeof one) < 0)
    return; // the counter is full: the control thread is awake
}

void worker_drop(struct worker *worker, enum drop reason, uint64_t count, const struct dropped *d) {
  COUNT(worker->counters.drops[reason], count);
  if (d->sa != NULL) COUNT(d->sa->drops[reason], (uint32_t)count);
  if (!report_due(&worker->reports, reason, worker->now_ms)) return;
  struct report report = {.reason = reason};
  if (d->sa != NULL) {
    report.has |= DROP_HAS_SPI;
    report.spi = d->sa->spi;
  }
  if (d->from != NULL) {
    report.has |= DROP_HAS_FROM;
    report.from = *d->from;
  }
  if (d->pair != NULL) {
    report.has |= DROP_HAS_PAIR;
    report.pair = *d->pair;
  }
  push(worker, &report);
}

void worker_unknown_spi(struct worker *worker, uint32_t spi, const struct underlay *from) {
  COUNT(worker->counters.drops[DROP_UNKNOWN_SPI], 1);
  bool drop_due = report_due(&worker->reports, DROP_UNKNOWN_SPI, worker->now_ms);
  bool spi_due = report_unknown_spi_due(&worker->reports, from, worker->now_ms);
  if (!drop_due && !spi_due) return;
  push(worker, &(struct report){.reason = drop_due ? DROP_UNKNOWN_SPI : DROP_NONE,
                                .has = DROP_HAS_SPI | DROP_HAS_FROM,
                                .unknown_spi = spi_due,
                                .spi = spi,
                                .from = *from});
}

void worker_moved(struct worker *worker, struct sa *sa, const struct underlay *from) {
  if (sa->moved_ms != 0 && worker->now_ms - sa->moved_ms < MOVED_INTERVAL_MS) return;
  sa->moved_ms = worker->now_ms;
  push(worker, &(struct report){.reason = DROP_NONE, .moved = true, .spi = sa->spi, .from = *from});
}
