// SPDX-License-Identifier: Apache-2.0
#include "handoff.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

// Before each packet. A length of REST says that the ring goes on at its beginning.
struct record {
  uint32_t length;
  struct handoff_note note;
};
#define REST UINT32_MAX
#define ALIGN 8u

_Static_assert((HANDOFF_RING & (HANDOFF_RING - 1)) == 0, "positions are taken modulo the ring's size");
_Static_assert(LANES_MAX <= 8, "a byte has a bit for each lane");

bool handoff_init(struct handoff *h, unsigned lanes) {
  memset(h, 0, sizeof *h);
  h->lanes = lanes;
  for (unsigned to = 0; to < lanes && lanes > 1; to++) {
    h->wake_fds[to] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake_fds[to] < 0) return false;
    for (unsigned from = 0; from < lanes; from++) {
      if (from == to) continue;
      // Mapped, so that a ring that is never used costs nothing.
      void *bytes = mmap(NULL, HANDOFF_RING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (bytes == MAP_FAILED) return false;
      h->rings[from][to].bytes = bytes;
    }
  }
  return true;
}

static uint32_t record_bytes(size_t length) {
  return (uint32_t)(sizeof(struct record) + length + ALIGN - 1) & ~(ALIGN - 1);
}

bool handoff_put(struct handoff *h, unsigned from, unsigned to, const uint8_t *data, size_t length,
                 const struct handoff_note *note) {
  struct handoff_ring *r = &h->rings[from][to];
  uint64_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
  uint64_t free = HANDOFF_RING - (written - atomic_load_explicit(&r->read, memory_order_acquire));
  uint32_t at = (uint32_t)written & (HANDOFF_RING - 1), rest = HANDOFF_RING - at, bytes = record_bytes(length);
  // A packet lies in one piece: what is left at the ring's end and too small for it stays empty.
  uint32_t skipped = rest < bytes ? rest : 0;
  if (length > HANDOFF_RING / 2 || free < (uint64_t)bytes + skipped) return false;
  struct record record = {.length = REST};
  if (skipped > 0) {
    memcpy(r->bytes + at, &record.length, sizeof record.length);
    at = 0;
  }
  record.length = (uint32_t)length;
  if (note != NULL) record.note = *note;
  memcpy(r->bytes + at, &record, sizeof record);
  memcpy(r->bytes + at + sizeof record, data, length);
  atomic_store_explicit(&r->written, written + skipped + bytes, memory_order_release);
  h->dirty[from][0] |= (uint8_t)(1u << to);
  return true;
}

void handoff_wake(struct handoff *h, unsigned from) {
  if (LIKELY(h->dirty[from][0] == 0)) return;
  for (unsigned to = 0; to < h->lanes; to++) {
    uint64_t one = 1;
    if (!(h->dirty[from][0] >> to & 1)) continue;
    if (write(h->wake_fds[to], &one, sizeof one) < 0) continue; // the counter is full: that thread is awake
  }
  h->dirty[from][0] = 0;
}

uint8_t *handoff_next(struct handoff *h, unsigned from, unsigned to, size_t *length, struct handoff_note *note) {
  struct handoff_ring *r = &h->rings[from][to];
  uint64_t written = atomic_load_explicit(&r->written, memory_order_acquire);
  if (r->taken == written) return NULL;
  uint32_t at = (uint32_t)r->taken & (HANDOFF_RING - 1);
  struct record record;
  memcpy(&record.length, r->bytes + at, sizeof record.length);
  if (record.length == REST) {
    r->taken += HANDOFF_RING - at;
    at = 0;
  }
  memcpy(&record, r->bytes + at, sizeof record);
  r->taken += record_bytes(record.length);
  *length = record.length;
  *note = record.note;
  return r->bytes + at + sizeof record;
}

void handoff_done(struct handoff *h, unsigned from, unsigned to) {
  struct handoff_ring *r = &h->rings[from][to];
  atomic_store_explicit(&r->read, r->taken, memory_order_release);
}

void handoff_wait(struct handoff *h, unsigned lane, int fd) {
  struct pollfd events[] = {{.fd = fd, .events = POLLIN}, {.fd = h->wake_fds[lane], .events = POLLIN}};
  uint64_t wakes;
  if (poll(events, ARRAY_SIZE(events), -1) <= 0 || events[1].revents == 0) return;
  if (read(h->wake_fds[lane], &wakes, sizeof wakes) < 0) return; // nothing to take back
}
