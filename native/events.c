// SPDX-License-Identifier: Apache-2.0
// The events of the control protocol.
#include "aead.h"
#include "engine.h"
#include "vault.h"
#include "wire.h"

static void say_expiry(struct engine *e, const struct sa *sa, enum expiry_kind kind, uint8_t cause) {
  struct wire_expiry *event = connection_append(&e->connection, MSG_EXPIRY, sizeof *event);
  if (event == NULL) return;
  sa_id_to_wire(&event->sa, sa);
  event->kind = (uint8_t)kind;
  event->cause = (uint8_t)(cause - 1);
}

static void say_limits(struct engine *e, struct sa *sa) {
  uint8_t soft = atomic_load(&sa->soft_cause), hard = atomic_load(&sa->hard_cause);
  if (soft != 0 && hard == 0 && !sa->soft_said) say_expiry(e, sa, EXPIRY_SOFT, soft);
  if (hard != 0 && !sa->hard_said) say_expiry(e, sa, EXPIRY_HARD, hard);
  sa->soft_said = soft != 0;
  sa->hard_said = hard != 0;
}

static void limits(struct engine *e) {
  struct sa *sa = sa_take_notices(&e->notices);
  while (sa != NULL) {
    struct sa *next = sa->noticed_next;
    atomic_store(&sa->noticed, false); // from here on it may be noticed again, and `noticed_next` is not ours
    if (e->connection.number != 0) say_limits(e, sa);
    sa = next;
  }
}

static void acquires(struct engine *e) {
  if (e->connection.number == 0) return;
  pthread_mutex_lock(&e->hold.lock);
  // The news are the youngest.
  for (struct held_pair *held = e->hold.news ? e->hold.newest : NULL; held != NULL && !held->announced;
       held = held->older) {
    struct wire_acquire *event = connection_append(&e->connection, MSG_ACQUIRE, sizeof *event);
    if (event == NULL) break;
    pair_to_wire(&event->pair, &held->pair);
    held->announced = true;
  }
  e->hold.news = false;
  pthread_mutex_unlock(&e->hold.lock);
}

static void say_drop(struct engine *e, const struct report *report) {
  uint64_t total = engine_drops(e, report->reason);
  struct wire_drop *event = connection_append(&e->connection, MSG_DROP, sizeof *event);
  if (event == NULL) return;
  event->reason = (uint16_t)report->reason;
  event->has = report->has;
  event->count = total - e->drops_reported[report->reason];
  event->spi = report->spi;
  underlay_to_wire(&event->from, &report->from);
  pair_to_wire(&event->pair, &report->pair);
  e->drops_reported[report->reason] = total;
}

static void say_moved(struct engine *e, const struct report *report) {
  const struct wire_sa_id id = {.direction = DIRECTION_IN, .spi = report->spi};
  const struct sa *sa = table_find(&e->table, &id);
  struct wire_moved *event = sa == NULL ? NULL : connection_append(&e->connection, MSG_MOVED, sizeof *event);
  if (event == NULL) return;
  sa_id_to_wire(&event->sa, sa);
  underlay_to_wire(&event->from, &report->from);
}

static void reports(struct engine *e) {
  struct report report;
  for (unsigned i = 0; i < WORKER_COUNT; i++) {
    while (report_pop(&e->workers[i].reports, &report)) {
      if (connection_pending(&e->connection) >= CONNECTION_BUSY) continue;
      if (report.unknown_spi) {
        struct wire_unknown_spi *event = connection_append(&e->connection, MSG_UNKNOWN_SPI, sizeof *event);
        if (event != NULL) {
          event->spi = report.spi;
          underlay_to_wire(&event->from, &report.from);
        }
      }
      if (report.moved) say_moved(e, &report);
      if (report.reason != DROP_NONE) say_drop(e, &report);
    }
  }
}

void engine_events(struct engine *e) {
  limits(e);
  acquires(e);
  reports(e);
}

void engine_greet(struct engine *e) {
  struct wire_hello hello = {
      .version = PROTOCOL_VERSION,
      .pid = e->pid,
      .instance = e->instance,
      .flags = (e->release.tun.udp_offload ? HELLO_FLAG_USO : 0u) | (e->gro ? HELLO_FLAG_GRO : 0u) |
               (vault_locked() ? HELLO_FLAG_LOCKED : 0u) | (e->kernel_esp ? HELLO_FLAG_KERNEL_ESP : 0u) |
               e->lanes << HELLO_LANES_SHIFT,
  };
  strncpy(hello.aead, aead->name, sizeof hello.aead - 1);
  struct wire_hello *to = connection_append(&e->connection, MSG_HELLO, sizeof hello);
  if (to != NULL) *to = hello;

  pthread_mutex_lock(&e->hold.lock);
  for (struct held_pair *held = e->hold.oldest; held != NULL; held = held->newer) held->announced = false;
  e->hold.news = e->hold.oldest != NULL;
  pthread_mutex_unlock(&e->hold.lock);
  for (struct sa *sa = e->table.oldest; sa != NULL; sa = sa->newer) {
    sa->soft_said = sa->hard_said = false;
    say_limits(e, sa);
  }
  engine_events(e);
}

int engine_expire(struct engine *e) {
  struct worker *self = &e->workers[WORKER_CONTROL];
  worker_clock(self);
  pthread_mutex_lock(&e->hold.lock);
  struct held_pair *held;
  while ((held = hold_take_expired(&e->hold, self->now_ms)) != NULL) {
    worker_drop(self, DROP_HOLD_EXPIRED, held->packets, &(struct dropped){.pair = &held->pair});
    hold_free(held);
  }
  uint64_t next = e->hold.oldest == NULL ? 0 : e->hold.oldest->deadline_ms - self->now_ms + 1;
  bool waiting = e->hold.oldest != NULL;
  pthread_mutex_unlock(&e->hold.lock);
  return waiting ? (int)(next < 1000 ? next : 1000) : -1;
}
