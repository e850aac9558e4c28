// SPDX-License-Identifier: Apache-2.0
#include "report.h"

bool report_due(struct reports *r, enum drop reason, uint64_t now_ms) {
  if (r->last_ms[reason] != 0 && now_ms - r->last_ms[reason] < REPORT_INTERVAL_MS) return false;
  r->last_ms[reason] = now_ms;
  return true;
}

// Senders share slots by hash: one that floods can hide those of its own slot only, and all get at most the common rate.
bool report_unknown_spi_due(struct reports *r, const struct underlay *from, uint64_t now_ms) {
  uint64_t source = (from->address.word[0] ^ from->address.word[1] ^ from->port) * 0x9e3779b97f4a7c15u;
  unsigned slot = (unsigned)(source >> 58) % REPORT_SOURCES;
  if (r->sources[slot].last_ms != 0 && now_ms - r->sources[slot].last_ms < UNKNOWN_SPI_INTERVAL_MS) return false;
  if (r->second != now_ms / 1000) {
    r->second = now_ms / 1000;
    r->in_second = 0;
  }
  if (r->in_second >= UNKNOWN_SPI_PER_SECOND) return false;
  r->in_second++;
  r->sources[slot].last_ms = now_ms;
  return true;
}

bool report_push(struct reports *r, const struct report *report) {
  uint32_t at = atomic_load_explicit(&r->written, memory_order_relaxed);
  if (at - atomic_load_explicit(&r->read, memory_order_acquire) == REPORT_SLOTS) return false;
  r->slots[at % REPORT_SLOTS] = *report;
  atomic_store_explicit(&r->written, at + 1, memory_order_release);
  return true;
}

bool report_pop(struct reports *r, struct report *report) {
  uint32_t at = atomic_load_explicit(&r->read, memory_order_relaxed);
  if (at == atomic_load_explicit(&r->written, memory_order_acquire)) return false;
  *report = r->slots[at % REPORT_SLOTS];
  atomic_store_explicit(&r->read, at + 1, memory_order_release);
  return true;
}
