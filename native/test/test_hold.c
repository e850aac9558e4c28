// SPDX-License-Identifier: Apache-2.0
#include "../hold.h"

#include <stdlib.h>

#include "check.h"

static const struct hold_limits limits = {
    .packets_per_pair = 4, .bytes_per_pair = 1000, .bytes_total = 5000, .timeout_ms = 100};

static struct pair pair_number(uint64_t n) { return (struct pair){.local = {{1, 2}}, .remote = {{3, n}}}; }

static void bounds(void) {
  static struct hold hold;
  uint8_t data[600] = {0};
  bool fresh;
  hold_init(&hold, &limits, 7);
  struct pair a = pair_number(1), b = pair_number(2);
  CHECK(hold_add(&hold, &a, data, 100, 0, &fresh) == DROP_NONE && fresh);
  for (int i = 0; i < 3; i++) CHECK(hold_add(&hold, &a, data, 100, 0, &fresh) == DROP_NONE && !fresh);
  CHECK(hold_add(&hold, &a, data, 100, 0, &fresh) == DROP_HOLD_PAIR_FULL); // packets
  CHECK(hold_add(&hold, &b, data, 600, 0, &fresh) == DROP_NONE && fresh);
  CHECK(hold_add(&hold, &b, data, 600, 0, &fresh) == DROP_HOLD_PAIR_FULL); // bytes
  CHECK(hold.pair_count == 2 && hold.packet_count == 5 && hold.packet_bytes == 1000);
  enum drop reason = DROP_NONE;
  unsigned pairs = 2;
  for (uint64_t n = 3; reason == DROP_NONE; n++) {
    struct pair other = pair_number(n);
    reason = hold_add(&hold, &other, data, 1, 0, &fresh);
    if (reason == DROP_NONE) pairs++;
  }
  CHECK(reason == DROP_HOLD_TOTAL_FULL && hold.bytes_total <= limits.bytes_total && pairs < 100);
  for (uint64_t n = 1; n <= pairs; n++) {
    struct pair other = pair_number(n);
    struct held_pair *held = hold_take(&hold, &other);
    CHECK(held != NULL);
    hold_free(held);
    CHECK(hold_take(&hold, &other) == NULL);
  }
  CHECK(hold.bytes_total == 0 && hold.pair_count == 0 && hold.packet_count == 0 && hold.packet_bytes == 0);
  CHECK(hold.oldest == NULL && hold.newest == NULL);
}

static void order_and_time(void) {
  static struct hold hold;
  bool fresh;
  hold_init(&hold, &limits, 7);
  struct pair a = pair_number(1), b = pair_number(2);
  for (uint8_t i = 0; i < 3; i++) CHECK(hold_add(&hold, &a, &i, 1, 10, &fresh) == DROP_NONE);
  uint8_t byte = 9;
  CHECK(hold_add(&hold, &b, &byte, 1, 50, &fresh) == DROP_NONE);
  CHECK(hold_take_expired(&hold, 109) == NULL);
  struct held_pair *held = hold_take_expired(&hold, 110); // counted from the first packet
  CHECK(held != NULL && pair_equal(&held->pair, &a) && held->packets == 3);
  uint8_t next = 0;
  for (struct held_packet *p = held->first; p != NULL; p = p->next) CHECK(p->length == 1 && p->data[0] == next++);
  hold_free(held);
  CHECK(hold_take_expired(&hold, 110) == NULL);
  held = hold_take_expired(&hold, 150);
  CHECK(held != NULL && pair_equal(&held->pair, &b));
  hold_free(held);
}

const struct test hold_tests[] = {
    {"hold: bounded for each pair and in total", bounds},
    {"hold: in order, and for a time only", order_and_time},
    {0},
};
