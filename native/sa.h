// SPDX-License-Identifier: Apache-2.0
// One security association. The control thread makes it, publishes it in the tables (table.h) and frees it through RCU;
// exactly one thread at a time carries packets with it, so its packet state needs no lock.
#pragma once

#include <netinet/in.h>
#include <stdatomic.h>

#include "common.h"
#include "protocol.h"
#include "rcu.h"
#include "replay.h"
#include "stats.h"

#define SA_HEADER 16  // SPI, sequence number, IV (RFC 4303 section 2, RFC 4106 section 3.1)
#define SA_SALT 4
#define SA_NO_LIMIT UINT64_MAX

// A socket address of the engine's UDP socket's own family.
struct peer {
  union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
  } address;
  socklen_t length;
  struct underlay underlay; // the same, as control messages have it
  struct rcu_retired retired;
};

struct sa;

// A pair of an outbound SA in the pair table; chained newest first.
struct sa_pair {
  struct sa_pair *_Atomic next;
  struct sa *sa;
  struct pair pair;
};

// Where threads leave SAs whose limit was reached, for the control thread. Lock-free, intrusive, never loses one.
struct sa_notices {
  struct sa *_Atomic first;
  int wake_fd; // eventfd of the control thread
};

struct sa {
  // Constant, read for every packet.
  void *aead;
  uint32_t spi;
  uint8_t salt[SA_SALT];
  uint8_t direction; // enum sa_direction
  uint8_t lane;      // of the threads of its direction, the one that carries packets with it
  bool has[2];       // which of `pairs` there are
  struct sa_pair pairs[2]; // [0] IPv4, [1] IPv6
  struct sa *_Atomic spi_next; // inbound: chain of the SPI table
  struct peer *_Atomic peer;   // replaced as a whole when the peer moves
  _Atomic uint16_t most;       // bytes of the largest inner packet that fits the way to the peer

  // Written by the thread that carries packets.
  _Alignas(CACHE_LINE) uint64_t sequence; // outbound: of the last packet sealed
  struct replay replay;                   // inbound
  uint64_t packets;
  uint64_t bytes;
  uint64_t notice_packets; // the next limit, soft or hard
  uint64_t notice_bytes;
  uint64_t last_used_ms; // CLOCK_MONOTONIC; 0 never
  uint64_t moved_ms; // inbound: when a packet was last said to have come from elsewhere
  uint32_t drops[DROP_COUNT];
  // Once a limit is reached: its enum expiry_cause + 1.
  _Atomic uint8_t soft_cause;
  _Atomic uint8_t hard_cause;
  struct sa *noticed_next; // in struct sa_notices
  _Atomic bool noticed;

  // Control thread only.
  struct wire_lifetimes limits;
  uint64_t serial;
  bool soft_said, hard_said;
  struct sa *id_next;         // chain of the table by direction, SPI and peer
  struct sa *older, *newer;   // by serial
  struct rcu_retired retired;
  uint32_t remove_request;    // whose answer waits for the release
  uint64_t remove_connection;
  uint16_t note_length;
  char *note; // in the same block
};

struct sa_parameters {
  uint8_t direction;
  uint32_t spi;
  unsigned pair_count;
  struct pair pairs[2];
  struct wire_lifetimes limits;
  uint32_t replay_window;
  const uint8_t *key;
  const uint8_t *salt;
  const char *note;
  uint16_t note_length;
};

// An SA in vault memory, not published; takes over `peer`. NULL when memory ran out, and then `peer` stays the caller's.
struct sa *sa_create(const struct sa_parameters *parameters, struct peer *peer);
// Zeroes and frees SA, key and peer. No thread may hold it.
void sa_destroy(struct sa *sa);

// Called by the carrying thread when a limit is reached: decides which, marks the SA, leaves a notice.
void sa_limit_reached(struct sa *sa, struct sa_notices *notices);
// Takes the SA out of use for a cause.
void sa_expire(struct sa *sa, enum expiry_cause cause, struct sa_notices *notices);
// All SAs with a notice, linked by `noticed_next`. Control thread.
struct sa *sa_take_notices(struct sa_notices *notices);

// Asks for all that a packet needs of an SA that was not used lately, at once instead of one miss after the other.
static inline void sa_warm(const struct sa *sa, size_t handle_bytes) {
  const uint8_t *handle = sa->aead, *own = (const uint8_t *)sa;
  for (size_t at = 0; at < handle_bytes; at += CACHE_LINE) __builtin_prefetch(handle + at);
  for (size_t at = CACHE_LINE; at < offsetof(struct sa, drops); at += CACHE_LINE) __builtin_prefetch(own + at, 1);
  __builtin_prefetch(&sa->limits);
  __builtin_prefetch(atomic_load_explicit(&sa->peer, memory_order_relaxed));
  if (sa->direction == DIRECTION_IN) __builtin_prefetch(&sa->replay.bits[(sa->replay.top & (sa->replay.size - 1)) / 64], 1);
}

static inline bool sa_expired(const struct sa *sa) {
  return atomic_load_explicit(&sa->hard_cause, memory_order_relaxed) != 0;
}

// Outbound: takes the SA out of use, and returns false, unless `count` more packets stay within all hard limits.
static inline bool sa_admits(struct sa *sa, unsigned count, struct sa_notices *notices) {
  if (UNLIKELY(sa_expired(sa))) return false;
  if (UNLIKELY(count > sa->limits.hard_packets - sa->packets)) {
    sa_expire(sa, CAUSE_PACKETS, notices);
    return false;
  }
  // The last number is never used, so that the counter cannot wrap (RFC 4303 section 3.3.3).
  if (UNLIKELY(count >= UINT64_MAX - sa->sequence)) {
    sa_expire(sa, CAUSE_SEQUENCE, notices);
    return false;
  }
  return true;
}

// Counts `packets` inner packets of `bytes` in all that the SA carried.
static inline void sa_account(struct sa *sa, uint64_t packets, uint64_t bytes, uint64_t now_ms,
                              struct sa_notices *notices) {
  COUNT(sa->packets, packets);
  COUNT(sa->bytes, bytes);
  if (sa->last_used_ms != now_ms) __atomic_store_n(&sa->last_used_ms, now_ms, __ATOMIC_RELAXED);
  if (UNLIKELY(sa->packets >= sa->notice_packets || sa->bytes >= sa->notice_bytes)) sa_limit_reached(sa, notices);
}
