// SPDX-License-Identifier: Apache-2.0
#include "sa.h"

#include <unistd.h>

#include "aead.h"
#include "mtu.h"
#include "vault.h"

// The next limit that has to be looked at: the soft one, unless it was reached or is none or above the hard one.
static uint64_t next_limit(uint64_t soft, uint64_t hard, bool soft_done) { return !soft_done && soft < hard ? soft : hard; }

static void set_notices(struct sa *sa) {
  bool soft_done = atomic_load_explicit(&sa->soft_cause, memory_order_relaxed) != 0;
  sa->notice_packets = next_limit(sa->limits.soft_packets, sa->limits.hard_packets, soft_done);
  sa->notice_bytes = next_limit(sa->limits.soft_bytes, sa->limits.hard_bytes, soft_done);
}

struct sa *sa_create(const struct sa_parameters *p, struct peer *peer) {
  bool inbound = p->direction == DIRECTION_IN;
  size_t window_bytes = inbound ? p->replay_window / 8 : 0;
  struct sa *sa = vault_alloc(sizeof *sa + window_bytes + p->note_length);
  if (sa == NULL) return NULL;
  sa->aead = aead->create(p->key, !inbound);
  if (sa->aead == NULL) {
    vault_free(sa);
    return NULL;
  }
  sa->direction = p->direction;
  sa->spi = p->spi;
  memcpy(sa->salt, p->salt, SA_SALT);
  for (unsigned i = 0; i < p->pair_count; i++) {
    unsigned family = addr_is_ip4(p->pairs[i].remote) ? 0 : 1;
    sa->has[family] = true;
    sa->pairs[family].sa = sa;
    sa->pairs[family].pair = p->pairs[i];
  }
  atomic_store(&sa->peer, peer);
  atomic_store(&sa->most, MTU_NO_LIMIT);
  sa->limits = p->limits;
  set_notices(sa);
  if (inbound) {
    sa->replay.size = p->replay_window;
    sa->replay.bits = (uint64_t *)(sa + 1);
  }
  sa->note = (char *)(sa + 1) + window_bytes;
  sa->note_length = p->note_length;
  memcpy(sa->note, p->note, p->note_length);
  return sa;
}

void sa_destroy(struct sa *sa) {
  aead->destroy(sa->aead);
  vault_free(atomic_load(&sa->peer));
  vault_free(sa);
}

// Puts the SA on the control thread's list, unless it is there already, and wakes that thread.
static void leave_notice(struct sa *sa, struct sa_notices *notices) {
  if (atomic_exchange(&sa->noticed, true)) return;
  struct sa *first = atomic_load_explicit(&notices->first, memory_order_relaxed);
  do {
    sa->noticed_next = first;
  } while (!atomic_compare_exchange_weak(&notices->first, &first, sa));
  uint64_t one = 1;
  // Can only fail when the counter is full, and then the control thread is awake.
  if (write(notices->wake_fd, &one, sizeof one) < 0) return;
}

void sa_expire(struct sa *sa, enum expiry_cause cause, struct sa_notices *notices) {
  uint8_t none = 0;
  if (atomic_compare_exchange_strong(&sa->hard_cause, &none, (uint8_t)(cause + 1))) leave_notice(sa, notices);
  sa->notice_packets = sa->notice_bytes = SA_NO_LIMIT;
}

void sa_limit_reached(struct sa *sa, struct sa_notices *notices) {
  if (sa->packets >= sa->limits.hard_packets) return sa_expire(sa, CAUSE_PACKETS, notices);
  if (sa->bytes >= sa->limits.hard_bytes) return sa_expire(sa, CAUSE_BYTES, notices);
  bool by_packets = sa->packets >= sa->limits.soft_packets;
  if (by_packets || sa->bytes >= sa->limits.soft_bytes) {
    uint8_t none = 0;
    uint8_t cause = (uint8_t)((by_packets ? CAUSE_PACKETS : CAUSE_BYTES) + 1);
    if (atomic_compare_exchange_strong(&sa->soft_cause, &none, cause)) leave_notice(sa, notices);
  }
  set_notices(sa);
}

struct sa *sa_take_notices(struct sa_notices *notices) {
  return atomic_exchange(&notices->first, NULL);
}
