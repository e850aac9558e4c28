// SPDX-License-Identifier: Apache-2.0
#include "table.h"

#include <sys/mman.h>

#include "wire.h"

// Buckets are mapped, not allocated: pages that no SA ever hashed to cost nothing.
static void *map_buckets(void) {
  void *buckets =
      mmap(NULL, TABLE_BUCKETS * sizeof(void *), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return buckets == MAP_FAILED ? NULL : buckets;
}

bool table_init(struct sa_table *table, const uint64_t seed[2]) {
  memset(table, 0, sizeof *table);
  table->seed[0] = seed[0] | 1;
  table->seed[1] = seed[1] | 1;
  table->by_spi = map_buckets();
  table->by_pair = map_buckets();
  table->by_id = map_buckets();
  return table->by_spi != NULL && table->by_pair != NULL && table->by_id != NULL;
}

// An inbound SA is named by its SPI alone.
static uint32_t id_bucket(const struct sa_table *table, uint8_t direction, uint32_t spi, struct underlay peer) {
  uint64_t where = direction == DIRECTION_IN
                       ? 0
                       : table_hash(table, peer.address.word[0] ^ peer.port, peer.address.word[1]) | 1;
  return (uint32_t)table_hash(table, where, (uint64_t)direction << 32 | spi) & (TABLE_BUCKETS - 1);
}

static struct underlay peer_of(const struct sa *sa) { return atomic_load(&sa->peer)->underlay; }

static struct sa **id_slot(const struct sa_table *table, const struct sa *sa) {
  return &table->by_id[id_bucket(table, sa->direction, sa->spi, peer_of(sa))];
}

static void link_id(struct sa_table *table, struct sa *sa) {
  struct sa **slot = id_slot(table, sa);
  sa->id_next = *slot;
  *slot = sa;
}

static void unlink_id(struct sa_table *table, struct sa *sa) {
  struct sa **slot = id_slot(table, sa);
  while (*slot != sa) slot = &(*slot)->id_next;
  *slot = sa->id_next;
}

static void publish(struct sa_table *table, struct sa *sa) {
  if (sa->direction == DIRECTION_IN) {
    struct sa *_Atomic *slot = &table->by_spi[table_spi_bucket(table, sa->spi)];
    atomic_store_explicit(&sa->spi_next, atomic_load(slot), memory_order_relaxed);
    atomic_store_explicit(slot, sa, memory_order_release);
    return;
  }
  for (unsigned family = 0; family < 2; family++) {
    if (!sa->has[family]) continue;
    struct sa_pair *entry = &sa->pairs[family];
    struct sa_pair *_Atomic *slot = &table->by_pair[table_pair_bucket(table, &entry->pair)];
    atomic_store_explicit(&entry->next, atomic_load(slot), memory_order_relaxed);
    atomic_store_explicit(slot, entry, memory_order_release);
  }
}

// A reader standing on an unlinked element still finds its way on: `next` is left as it was.
static void withdraw(struct sa_table *table, struct sa *sa) {
  if (sa->direction == DIRECTION_IN) {
    struct sa *_Atomic *slot = &table->by_spi[table_spi_bucket(table, sa->spi)];
    while (atomic_load(slot) != sa) slot = &atomic_load(slot)->spi_next;
    atomic_store_explicit(slot, atomic_load(&sa->spi_next), memory_order_release);
    return;
  }
  for (unsigned family = 0; family < 2; family++) {
    if (!sa->has[family]) continue;
    struct sa_pair *entry = &sa->pairs[family];
    struct sa_pair *_Atomic *slot = &table->by_pair[table_pair_bucket(table, &entry->pair)];
    while (atomic_load(slot) != entry) slot = &atomic_load(slot)->next;
    atomic_store_explicit(slot, atomic_load(&entry->next), memory_order_release);
  }
}

void table_insert(struct sa_table *table, struct sa *sa) {
  sa->serial = ++table->last_serial;
  sa->newer = NULL;
  sa->older = table->newest;
  if (sa->older != NULL) sa->older->newer = sa;
  table->newest = sa;
  if (table->oldest == NULL) table->oldest = sa;
  table->count[sa->direction]++;
  link_id(table, sa);
  publish(table, sa);
}

void table_remove(struct sa_table *table, struct sa *sa) {
  withdraw(table, sa);
  unlink_id(table, sa);
  if (sa->older != NULL) sa->older->newer = sa->newer;
  if (sa->newer != NULL) sa->newer->older = sa->older;
  if (table->oldest == sa) table->oldest = sa->newer;
  if (table->newest == sa) table->newest = sa->older;
  if (table->cursor == sa) table->cursor = sa->older;
  table->count[sa->direction]--;
}

struct sa *table_find(const struct sa_table *table, const struct wire_sa_id *id) {
  struct underlay peer = underlay_from_wire(&id->peer);
  struct sa *sa = table->by_id[id_bucket(table, id->direction, id->spi, peer)];
  for (; sa != NULL; sa = sa->id_next) {
    if (sa->direction != id->direction || sa->spi != id->spi) continue;
    if (sa->direction == DIRECTION_IN) return sa;
    struct underlay its = peer_of(sa);
    if (its.port == peer.port && addr_equal(its.address, peer.address)) return sa;
  }
  return NULL;
}

struct sa *table_after(struct sa_table *table, uint64_t serial) {
  bool ahead = table->cursor == NULL || table->cursor->serial > serial;
  struct sa *sa = ahead ? table->oldest : table->cursor;
  while (sa != NULL && sa->serial <= serial) {
    table->cursor = sa;
    sa = sa->newer;
  }
  return sa;
}

struct peer *table_move_peer(struct sa_table *table, struct sa *sa, struct peer *peer) {
  struct peer *old = atomic_load(&sa->peer);
  unlink_id(table, sa);
  atomic_store_explicit(&sa->peer, peer, memory_order_release);
  link_id(table, sa);
  return old;
}
