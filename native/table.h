// SPDX-License-Identifier: Apache-2.0
// The tables of SAs. The control thread alone changes them; packet threads look up without locks inside RCU. Chained hashing
// over a fixed number of buckets keyed with a random seed: the cost of a lookup or an install does not grow up to
// about as many SAs as buckets, and no sender can aim for one bucket.
#pragma once

#include "common.h"
#include "sa.h"

#define TABLE_BUCKETS 65536
#define TABLE_MAX_SAS 262144

struct sa_table {
  struct sa *_Atomic *by_spi;       // inbound
  struct sa_pair *_Atomic *by_pair; // outbound, newest first
  struct sa **by_id;                // both, for the control thread
  uint64_t seed[2];
  struct sa *oldest, *newest;
  struct sa *cursor; // the last that table_after came to
  uint64_t last_serial;
  uint64_t count[2]; // by direction
};

// False when memory ran out.
bool table_init(struct sa_table *table, const uint64_t seed[2]);
// Publishes an SA. The caller has made sure that its id is new and the table not full.
void table_insert(struct sa_table *table, struct sa *sa);
// Unlinks an SA; readers may still hold it until a grace period has passed.
void table_remove(struct sa_table *table, struct sa *sa);
// By direction and SPI, for outbound also peer; NULL if there is none.
struct sa *table_find(const struct sa_table *table, const struct wire_sa_id *id);
// The oldest SA with a serial above `serial`, NULL if there is none. Asked for page after page in ascending order it does not
// walk twice over the same.
struct sa *table_after(struct sa_table *table, uint64_t serial);
// Gives an SA another peer and returns the old one, which readers may still hold.
struct peer *table_move_peer(struct sa_table *table, struct sa *sa, struct peer *peer);

static inline uint64_t table_hash(const struct sa_table *table, uint64_t a, uint64_t b) {
  // One folded multiplication by secrets (as in wyhash): uniform, and not to be steered without knowing the seed.
  __uint128_t product = (__uint128_t)(a ^ table->seed[0]) * (b ^ table->seed[1]);
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint32_t table_spi_bucket(const struct sa_table *table, uint32_t spi) {
  return (uint32_t)table_hash(table, spi, 0x9e3779b97f4a7c15u) & (TABLE_BUCKETS - 1);
}

static inline uint32_t table_pair_bucket(const struct sa_table *table, const struct pair *pair) {
  uint64_t local = table_hash(table, pair->local.word[0], pair->local.word[1]);
  uint64_t remote = table_hash(table, pair->remote.word[1], pair->remote.word[0]);
  return (uint32_t)table_hash(table, local, remote) & (TABLE_BUCKETS - 1);
}

// The first of the SPI's bucket, or NULL.
static inline const struct sa *table_first(const struct sa_table *table, uint32_t spi) {
  return atomic_load_explicit(&table->by_spi[table_spi_bucket(table, spi)], memory_order_acquire);
}

// The inbound SA with this SPI, or NULL.
static inline struct sa *table_inbound(const struct sa_table *table, uint32_t spi) {
  struct sa *sa = atomic_load_explicit(&table->by_spi[table_spi_bucket(table, spi)], memory_order_acquire);
  while (sa != NULL && sa->spi != spi) sa = atomic_load_explicit(&sa->spi_next, memory_order_acquire);
  return sa;
}

// Asks for the bucket of an SPI.
static inline void table_warm(const struct sa_table *table, uint32_t spi) {
  __builtin_prefetch(&table->by_spi[table_spi_bucket(table, spi)]);
}

// The newest outbound SA of the pair that is still in use, or NULL.
static inline struct sa *table_outbound(const struct sa_table *table, const struct pair *pair) {
  struct sa_pair *entry = atomic_load_explicit(&table->by_pair[table_pair_bucket(table, pair)], memory_order_acquire);
  while (entry != NULL && !(pair_equal(&entry->pair, pair) && !sa_expired(entry->sa)))
    entry = atomic_load_explicit(&entry->next, memory_order_acquire);
  return entry == NULL ? NULL : entry->sa;
}
