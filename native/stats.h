// SPDX-License-Identifier: Apache-2.0
// Counters. Each thread owns one set and is its only writer; the control thread reads them while they change.
#pragma once

#include "common.h"

// Why a packet was dropped. `tunnelDropReasons` of src/tunnel/driver.ts says each in words. A number is never given a
// second meaning.
enum drop {
  DROP_NONE = 0,
  DROP_UDP_TOO_SHORT = 1,
  DROP_NON_ESP = 2,
  DROP_UNKNOWN_SPI = 3,
  DROP_REPLAYED = 4,
  DROP_BEHIND_WINDOW = 5,
  DROP_AUTHENTICATION = 6,
  DROP_BAD_LENGTH = 7,
  DROP_BAD_PADDING = 8,
  DROP_BAD_NEXT_HEADER = 9,
  DROP_BAD_INNER = 10,
  DROP_SELECTOR = 11,
  DROP_EXPIRED_IN = 12,
  DROP_TUN_WRITE = 13,
  DROP_TUN_MALFORMED = 14,
  DROP_TUN_OFFLOAD = 15,
  DROP_HOLD_PAIR_FULL = 16,
  DROP_HOLD_TOTAL_FULL = 17,
  DROP_HOLD_EXPIRED = 18,
  DROP_HOLD_FAILED = 19,
  DROP_UDP_SEND = 20,
  DROP_TOO_BIG = 21,
  DROP_DUMMY = 22,
  DROP_TUN_NOT_UNICAST = 23,
  DROP_ECN = 24,
  DROP_HANDOFF_FULL = 25,
  DROP_COUNT
};

// Counters for tuning, by the name under which `statistics()` shows them.
#define DETAILS(X)                                                                                                     \
  X(tun_reads)              /* successful reads of the TUN device */                                                   \
  X(tun_read_empty)         /* reads that found it empty, after at least one packet */                                 \
  X(tun_super_packets)      /* packets read that were cut into segments */                                             \
  X(udp_send_calls)         /* system calls that sent */                                                               \
  X(udp_messages_sent)      /* messages handed to them, each up to 64 ESP packets */                                   \
  X(udp_resent_singly)      /* messages that the kernel refused as a whole */                                          \
  X(udp_receive_calls)      /* system calls that received */                                                           \
  X(udp_messages_received)  /* messages they gave, each up to 64 ESP packets */                                        \
  X(tun_writes)             /* writes to the TUN device */                                                             \
  X(tun_segments_coalesced) /* packets that travelled in another's write */                                            \
  X(handed_over)            /* packets that came to another thread than their SA's */                                  \
  X(keepalives)             /* NAT keepalives received (RFC 3948 section 2.3) */                                       \
  X(mtu_told)               /* senders told that a packet does not fit */                                              \
  X(mtu_cut)                /* packets cut into fragments because they do not fit */                                   \
  X(reports_lost)           /* drop and unknown-SPI events that found their queue full */

struct counters {
  uint64_t drops[DROP_COUNT];
  uint64_t sealed_packets;
  uint64_t sealed_bytes;
  uint64_t opened_packets;
  uint64_t opened_bytes;
#define X(name) uint64_t name;
  DETAILS(X)
#undef X
};

// Adds to a counter that only this thread writes: no locked instruction, and no torn read elsewhere.
#define COUNT(counter, n) __atomic_store_n(&(counter), (counter) + (n), __ATOMIC_RELAXED)
// Reads a counter that another thread writes.
#define COUNTED(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)
