// SPDX-License-Identifier: Apache-2.0
#include "hold.h"

#include <stdlib.h>

void hold_init(struct hold *hold, const struct hold_limits *limits, uint64_t seed) {
  memset(hold, 0, sizeof *hold);
  pthread_mutex_init(&hold->lock, NULL);
  hold->limits = *limits;
  hold->seed = seed | 1;
}

static struct held_pair **bucket_of(struct hold *hold, const struct pair *pair) {
  uint64_t hash = hold->seed;
  const uint64_t words[] = {pair->local.word[0], pair->local.word[1], pair->remote.word[0], pair->remote.word[1]};
  for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
    __uint128_t product = (__uint128_t)(hash ^ words[i]) * 0x9e3779b97f4a7c15u;
    hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ hold->seed;
  }
  return &hold->buckets[hash % HOLD_BUCKETS];
}

static struct held_pair *find(struct hold *hold, const struct pair *pair) {
  struct held_pair *held = *bucket_of(hold, pair);
  while (held != NULL && !pair_equal(&held->pair, pair)) held = held->bucket_next;
  return held;
}

static struct held_pair *start(struct hold *hold, const struct pair *pair, uint64_t now_ms) {
  struct held_pair *held = calloc(1, sizeof *held);
  if (held == NULL) return NULL;
  held->pair = *pair;
  held->last = &held->first;
  held->deadline_ms = now_ms + hold->limits.timeout_ms;
  struct held_pair **bucket = bucket_of(hold, pair);
  held->bucket_next = *bucket;
  *bucket = held;
  held->older = hold->newest;
  if (held->older != NULL) held->older->newer = held;
  hold->newest = held;
  if (hold->oldest == NULL) hold->oldest = held;
  hold->bytes_total += sizeof *held;
  hold->pair_count++;
  hold->news = true;
  return held;
}

enum drop hold_add(struct hold *hold, const struct pair *pair, const uint8_t *data, size_t length, uint64_t now_ms,
                   bool *fresh) {
  struct held_pair *held = find(hold, pair);
  *fresh = false;
  size_t cost = sizeof(struct held_packet) + length + (held == NULL ? sizeof *held : 0);
  if (hold->bytes_total + cost > hold->limits.bytes_total) return DROP_HOLD_TOTAL_FULL;
  if (held != NULL &&
      (held->packets >= hold->limits.packets_per_pair || held->bytes + length > hold->limits.bytes_per_pair))
    return DROP_HOLD_PAIR_FULL;
  struct held_packet *packet = malloc(sizeof *packet + length);
  if (packet == NULL) return DROP_HOLD_TOTAL_FULL;
  if (held == NULL) {
    held = start(hold, pair, now_ms);
    if (held == NULL) {
      free(packet);
      return DROP_HOLD_TOTAL_FULL;
    }
    *fresh = true;
  }
  packet->next = NULL;
  packet->length = length;
  memcpy(packet->data, data, length);
  *held->last = packet;
  held->last = &packet->next;
  held->packets++;
  held->bytes += length;
  hold->bytes_total += sizeof *packet + length;
  hold->packet_count++;
  hold->packet_bytes += length;
  return DROP_NONE;
}

static void unlink_pair(struct hold *hold, struct held_pair *held) {
  struct held_pair **slot = bucket_of(hold, &held->pair);
  while (*slot != held) slot = &(*slot)->bucket_next;
  *slot = held->bucket_next;
  if (held->older != NULL) held->older->newer = held->newer;
  if (held->newer != NULL) held->newer->older = held->older;
  if (hold->oldest == held) hold->oldest = held->newer;
  if (hold->newest == held) hold->newest = held->older;
  hold->bytes_total -= sizeof *held + held->packets * sizeof(struct held_packet) + held->bytes;
  hold->pair_count--;
  hold->packet_count -= held->packets;
  hold->packet_bytes -= held->bytes;
}

struct held_pair *hold_take(struct hold *hold, const struct pair *pair) {
  struct held_pair *held = find(hold, pair);
  if (held != NULL) unlink_pair(hold, held);
  return held;
}

struct held_pair *hold_take_expired(struct hold *hold, uint64_t now_ms) {
  struct held_pair *held = hold->oldest;
  if (held == NULL || held->deadline_ms > now_ms) return NULL;
  unlink_pair(hold, held);
  return held;
}

void hold_free(struct held_pair *held) {
  while (held->first != NULL) {
    struct held_packet *packet = held->first;
    held->first = packet->next;
    free(packet);
  }
  free(held);
}
