// SPDX-License-Identifier: Apache-2.0
#include "rcu.h"

void rcu_init(struct rcu *rcu) {
  memset(rcu, 0, sizeof *rcu);
  atomic_store(&rcu->epoch, 1);
  rcu->newest = &rcu->oldest;
}

void rcu_register(struct rcu *rcu, struct rcu_reader *reader) {
  atomic_store(&reader->seen, 0);
  rcu->readers[rcu->reader_count++] = reader;
}

void rcu_retire(struct rcu *rcu, struct rcu_retired *retired,
                void (*release)(struct rcu_retired *retired, void *context)) {
  retired->next = NULL;
  retired->release = release;
  // The unlinking stores come before the new epoch: who has seen this epoch cannot have found the object.
  retired->epoch = atomic_fetch_add(&rcu->epoch, 1) + 1;
  *rcu->newest = retired;
  rcu->newest = &retired->next;
}

bool rcu_reclaim(struct rcu *rcu, void *context) {
  if (rcu->oldest == NULL) return false;
  atomic_thread_fence(memory_order_seq_cst);
  uint64_t passed = UINT64_MAX;
  for (unsigned i = 0; i < rcu->reader_count; i++) {
    uint64_t seen = atomic_load(&rcu->readers[i]->seen);
    if (seen != 0 && seen < passed) passed = seen;
  }
  while (rcu->oldest != NULL && rcu->oldest->epoch <= passed) {
    struct rcu_retired *retired = rcu->oldest;
    rcu->oldest = retired->next;
    if (rcu->oldest == NULL) rcu->newest = &rcu->oldest;
    retired->release(retired, context);
  }
  return rcu->oldest != NULL;
}
