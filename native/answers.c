// SPDX-License-Identifier: Apache-2.0
#include "answers.h"

#include <stdio.h>

#include "vault.h"
#include "wire.h"

void answer_done(struct engine *e, uint32_t id, enum message_status status, bool more) {
  struct wire_done *answer = connection_append(&e->connection, MSG_DONE, sizeof *answer);
  if (answer != NULL) *answer = (struct wire_done){.id = id, .status = (uint8_t)status, .more = more};
}

static void list_one(struct engine *e, uint32_t id, const struct sa *sa, uint64_t now_ms) {
  uint64_t used = COUNTED(sa->last_used_ms);
  struct wire_sa m = {
      .id = id,
      .serial = sa->serial,
      .flags = sa_expired(sa) ? SA_FLAG_EXPIRED : 0,
      .lifetimes = sa->limits,
      .replay_window = sa->direction == DIRECTION_IN ? sa->replay.size : 0,
      .packets = COUNTED(sa->packets),
      .bytes = COUNTED(sa->bytes),
      .idle_ms = used == 0 ? PROTOCOL_NO_LIMIT : now_ms > used ? now_ms - used : 0,
      .sequence = sa->direction == DIRECTION_IN ? COUNTED(sa->replay.top) : COUNTED(sa->sequence),
      .drop_count = DROP_COUNT,
      .note_length = sa->note_length,
  };
  sa_id_to_wire(&m.sa, sa);
  for (unsigned family = 0; family < 2; family++)
    if (sa->has[family]) pair_to_wire(&m.selectors[m.selector_count++], &sa->pairs[family].pair);
  uint8_t *to = connection_append(&e->connection, MSG_SA, sizeof m + sizeof sa->drops + sa->note_length);
  if (to == NULL) return;
  memcpy(to, &m, sizeof m);
  to += sizeof m;
  for (unsigned i = 0; i < DROP_COUNT; i++) {
    uint32_t count = COUNTED(sa->drops[i]);
    memcpy(to + i * sizeof count, &count, sizeof count);
  }
  memcpy(to + sizeof sa->drops, sa->note, sa->note_length);
}

bool answer_list(struct engine *e, const struct message *message) {
  struct wire_list m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  struct worker *self = &e->workers[WORKER_CONTROL];
  worker_clock(self);
  struct sa *sa = table_after(&e->table, m.after);
  unsigned count = 0;
  for (; sa != NULL && count < PROTOCOL_PAGE; sa = sa->newer, count++) list_one(e, m.id, sa, self->now_ms);
  answer_done(e, m.id, STATUS_OK, sa != NULL);
  return true;
}

static uint64_t sum(const struct engine *e, size_t offset) {
  uint64_t total = 0;
  for (unsigned i = 0; i < WORKER_COUNT; i++)
    total += COUNTED(*(const uint64_t *)((const uint8_t *)&e->workers[i].counters + offset));
  return total;
}

uint64_t engine_drops(const struct engine *e, enum drop reason) {
  return sum(e, offsetof(struct counters, drops) + reason * sizeof(uint64_t));
}

static const struct {
  const char *name;
  size_t offset;
} details[] = {
#define X(name) {#name, offsetof(struct counters, name)},
    DETAILS(X)
#undef X
};

static struct wire_detail detail(const char *name, uint64_t value) {
  struct wire_detail made = {.value = value};
  strncpy(made.name, name, sizeof made.name);
  return made;
}

// What threads of a direction have carried, each by itself: whether they share the work.
static struct wire_detail *add_shares(const struct engine *e, struct wire_detail *to) {
  char name[sizeof to->name + 1];
  for (unsigned lane = 0; lane < e->lanes; lane++) {
    snprintf(name, sizeof name, "sealed_by_thread_%u", lane);
    *to++ = detail(name, COUNTED(e->workers[WORKER_OUTBOUND + lane].counters.sealed_packets));
    snprintf(name, sizeof name, "opened_by_thread_%u", lane);
    *to++ = detail(name, COUNTED(e->workers[WORKER_INBOUND + lane].counters.opened_packets));
  }
  return to;
}

bool answer_statistics(struct engine *e, const struct message *message) {
  struct wire_request m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  struct wire_counters counters = {
      .id = m.id,
      .sealed_packets = sum(e, offsetof(struct counters, sealed_packets)),
      .sealed_bytes = sum(e, offsetof(struct counters, sealed_bytes)),
      .opened_packets = sum(e, offsetof(struct counters, opened_packets)),
      .opened_bytes = sum(e, offsetof(struct counters, opened_bytes)),
      .sas_in = e->table.count[DIRECTION_IN],
      .sas_out = e->table.count[DIRECTION_OUT],
      .drop_count = DROP_COUNT,
      .detail_count = (uint16_t)(ARRAY_SIZE(details) + 1 + (e->lanes == 1 ? 0 : 2 * e->lanes)),
  };
  pthread_mutex_lock(&e->hold.lock);
  counters.held_pairs = e->hold.pair_count;
  counters.held_packets = e->hold.packet_count;
  counters.held_bytes = e->hold.packet_bytes;
  pthread_mutex_unlock(&e->hold.lock);
  size_t length = sizeof counters + DROP_COUNT * sizeof(uint64_t) + counters.detail_count * sizeof(struct wire_detail);
  uint8_t *to = connection_append(&e->connection, MSG_COUNTERS, length);
  if (to == NULL) return true;
  memcpy(to, &counters, sizeof counters);
  to += sizeof counters;
  for (unsigned i = 0; i < DROP_COUNT; i++, to += sizeof(uint64_t)) {
    uint64_t count = engine_drops(e, i);
    memcpy(to, &count, sizeof count);
  }
  struct wire_detail *next = (struct wire_detail *)to; // packed: alignment is no matter
  for (size_t i = 0; i < ARRAY_SIZE(details); i++) *next++ = detail(details[i].name, sum(e, details[i].offset));
  if (e->lanes > 1) next = add_shares(e, next);
  *next = detail("vault_bytes", vault_bytes());
  answer_done(e, m.id, STATUS_OK, false);
  return true;
}
