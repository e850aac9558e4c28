// SPDX-License-Identifier: Apache-2.0
// Read-copy-update by quiescent states: packet threads use shared objects without locks or counts; the control thread
// unlinks an object, then frees it once every packet thread has said that it holds nothing (or sleeps).
#pragma once

#include <stdatomic.h>

#include "common.h"

#define RCU_MAX_READERS 24

struct rcu_reader {
  // The epoch of the last quiescent state, 0 while offline. On a line of its own: it is written once a batch.
  _Alignas(CACHE_LINE) _Atomic uint64_t seen;
};

// Something unlinked that waits for its readers.
struct rcu_retired {
  struct rcu_retired *next;
  uint64_t epoch;
  void (*release)(struct rcu_retired *retired, void *context);
};

struct rcu {
  _Atomic uint64_t epoch;
  unsigned reader_count;
  struct rcu_reader *readers[RCU_MAX_READERS];
  struct rcu_retired *oldest, **newest; // control thread only
};

void rcu_init(struct rcu *rcu);
// Registers a packet thread, offline. Before threads start.
void rcu_register(struct rcu *rcu, struct rcu_reader *reader);
// Hands over an object that no new reader can find any more. Control thread.
void rcu_retire(struct rcu *rcu, struct rcu_retired *retired,
                void (*release)(struct rcu_retired *retired, void *context));
// Releases, in order of retirement, what no reader can hold any more. Returns whether something still waits.
bool rcu_reclaim(struct rcu *rcu, void *context);

// This thread holds no shared object now and goes on. Also ends being offline.
static inline void rcu_quiescent(struct rcu *rcu, struct rcu_reader *reader) {
  // Sequentially consistent: loads of shared pointers that follow may not be done before `seen` is visible.
  atomic_store(&reader->seen, atomic_load_explicit(&rcu->epoch, memory_order_acquire));
}

// This thread holds no shared object and will touch none until `rcu_quiescent`: call before a system call that sleeps.
static inline void rcu_offline(struct rcu_reader *reader) {
  atomic_store_explicit(&reader->seen, 0, memory_order_release);
}
