// SPDX-License-Identifier: Apache-2.0
// Lifetimes of an SA, and the tables.
#include "../sa.h"

#include <stdlib.h>

#include "../table.h"
#include "../vault.h"
#include "bed.h"
#include "check.h"

static void limits_in_packets(void) {
  struct engine *e = bed_engine();
  const struct wire_lifetimes limits = {SA_NO_LIMIT, SA_NO_LIMIT, 10, 20};
  struct sa *sa = bed_sa_limited(DIRECTION_OUT, 300, &limits);
  for (int i = 1; i <= 20; i++) {
    CHECK(sa_admits(sa, 1, &e->notices));
    sa_account(sa, 1, 100, 1, &e->notices);
    CHECK((atomic_load(&sa->soft_cause) != 0) == (i >= 10));
    CHECK(sa_expired(sa) == (i >= 20));
  }
  CHECK(!sa_admits(sa, 1, &e->notices));
  CHECK(atomic_load(&sa->hard_cause) == CAUSE_PACKETS + 1 && atomic_load(&sa->soft_cause) == CAUSE_PACKETS + 1);
  CHECK(sa_take_notices(&e->notices) == sa && sa->noticed_next == NULL); // once on the list, for both
  sa_destroy(sa);
}

static void a_burst_never_passes_the_hard_limit(void) {
  struct engine *e = bed_engine();
  const struct wire_lifetimes limits = {SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT, 50};
  struct sa *sa = bed_sa_limited(DIRECTION_OUT, 301, &limits);
  CHECK(sa_admits(sa, 45, &e->notices));
  sa_account(sa, 45, 45, 1, &e->notices);
  CHECK(!sa_admits(sa, 45, &e->notices) && sa_expired(sa));
  sa_take_notices(&e->notices);
  sa_destroy(sa);
}

static void limits_in_bytes(void) {
  struct engine *e = bed_engine();
  const struct wire_lifetimes limits = {1000, 2000, SA_NO_LIMIT, SA_NO_LIMIT};
  struct sa *sa = bed_sa_limited(DIRECTION_IN, 302, &limits);
  sa_account(sa, 1, 999, 1, &e->notices);
  CHECK(atomic_load(&sa->soft_cause) == 0);
  sa_account(sa, 1, 1, 1, &e->notices);
  CHECK(atomic_load(&sa->soft_cause) == CAUSE_BYTES + 1 && !sa_expired(sa));
  sa_account(sa, 1, 1000, 1, &e->notices);
  CHECK(atomic_load(&sa->hard_cause) == CAUSE_BYTES + 1);
  sa_take_notices(&e->notices);
  sa_destroy(sa);
}

static void the_last_sequence_number_is_never_used(void) {
  struct engine *e = bed_engine();
  struct sa *sa = bed_sa(DIRECTION_OUT, 303);
  sa->sequence = UINT64_MAX - 3;
  CHECK(sa_admits(sa, 2, &e->notices));
  sa->sequence += 2;
  CHECK(!sa_admits(sa, 1, &e->notices) && atomic_load(&sa->hard_cause) == CAUSE_SEQUENCE + 1);
  sa_take_notices(&e->notices);
  sa_destroy(sa);
}

// A key is nowhere once its SA is gone: neither as it came nor as what the implementation made of it.
static void destroyed_is_zeroed(void) {
  struct sa *sa = bed_sa(DIRECTION_OUT, 402);
  volatile uint64_t *words = (volatile uint64_t *)sa, *handle = sa->aead;
  uint64_t seen = 0;
  for (size_t i = 1; i < 8; i++) seen |= handle[i];
  CHECK(seen != 0);
  sa_destroy(sa);
  // The first word of a free block is the free list's link.
  for (size_t i = 1; i < sizeof *sa / 8; i++) CHECK(words[i] == 0);
  for (size_t i = 1; i < 8; i++) CHECK(handle[i] == 0);
}

static void newest_sends_and_the_older_takes_over(void) {
  struct engine *e = bed_engine();
  struct sa *old = bed_sa(DIRECTION_OUT, 400), *new = bed_sa(DIRECTION_OUT, 401);
  CHECK(table_outbound(&e->table, &bed_pair4) == NULL);
  table_insert(&e->table, old);
  CHECK(table_outbound(&e->table, &bed_pair4) == old && table_outbound(&e->table, &bed_pair6) == old);
  table_insert(&e->table, new);
  CHECK(table_outbound(&e->table, &bed_pair4) == new && table_outbound(&e->table, &bed_pair6) == new);
  sa_expire(new, CAUSE_BYTES, &e->notices);
  CHECK(table_outbound(&e->table, &bed_pair4) == old);
  table_remove(&e->table, old);
  CHECK(table_outbound(&e->table, &bed_pair4) == NULL);
  sa_destroy(old);
}

static void many(void) {
  enum { COUNT = 3000 };
  static struct sa *sas[COUNT];
  struct engine *e = bed_engine();
  for (uint32_t i = 0; i < COUNT; i++) table_insert(&e->table, sas[i] = bed_sa(DIRECTION_IN, 1000 + i * 7));
  for (int round = 0; round < 20000; round++) {
    uint32_t i = random_below(COUNT), spi = 1000 + i * 7;
    struct wire_sa_id id = {.direction = DIRECTION_IN, .spi = spi};
    CHECK(table_inbound(&e->table, spi) == sas[i] && table_find(&e->table, &id) == sas[i]);
    CHECK(table_inbound(&e->table, spi + 1) == NULL);
    if (round % 10 != 0) continue;
    uint64_t after = random_below((uint32_t)e->table.last_serial + 2);
    struct sa *first = e->table.oldest;
    while (first != NULL && first->serial <= after) first = first->newer;
    CHECK(table_after(&e->table, after) == first);
    if (sas[i] == NULL) {
      table_insert(&e->table, sas[i] = bed_sa(DIRECTION_IN, spi));
    } else {
      table_remove(&e->table, sas[i]);
      sa_destroy(sas[i]);
      sas[i] = NULL;
    }
  }
  uint64_t counted = 0, serial = 0;
  for (struct sa *sa = e->table.oldest; sa != NULL; sa = sa->newer, counted++) {
    CHECK(sa->serial > serial);
    serial = sa->serial;
  }
  CHECK(counted == e->table.count[DIRECTION_IN]);
}

const struct test sa_tests[] = {
    {"sa: limits in packets", limits_in_packets},
    {"sa: a burst never passes the hard limit", a_burst_never_passes_the_hard_limit},
    {"sa: limits in bytes", limits_in_bytes},
    {"sa: the last sequence number is never used", the_last_sequence_number_is_never_used},
    {"sa: the newest SA of a pair sends, an older one takes over", newest_sends_and_the_older_takes_over},
    {"sa: thousands come and go", many},
    {"sa: a destroyed one leaves nothing in memory", destroyed_is_zeroed},
    {0},
};
