// SPDX-License-Identifier: Apache-2.0
// Read-copy-update with real threads: no reader may ever see a released object.
#include "../rcu.h"

#include <pthread.h>
#include <stdlib.h>

#include "check.h"

#define READERS 3
#define ALIVE 0x600df00du
#define DEAD 0xdeadbeefu

struct object {
  _Atomic uint32_t state;
  struct rcu_retired retired;
};

static struct rcu rcu;
static struct rcu_reader readers[READERS];
static struct object *_Atomic current;
static atomic_bool over;
static atomic_ulong reads;
static unsigned released;

static void *read_on(void *argument) {
  struct rcu_reader *reader = argument;
  while (!atomic_load(&over)) {
    rcu_quiescent(&rcu, reader);
    for (int i = 0; i < 20; i++) {
      struct object *object = atomic_load_explicit(&current, memory_order_acquire);
      if (object->state != ALIVE) abort();
    }
    if (atomic_fetch_add(&reads, 20) % 1000 == 0) rcu_offline(reader);
  }
  rcu_offline(reader);
  return NULL;
}

static void release(struct rcu_retired *retired, void *context) {
  CHECK(context == &rcu);
  struct object *object = (struct object *)((uint8_t *)retired - offsetof(struct object, retired));
  object->state = DEAD;
  free(object);
  released++;
}

static struct object *make(void) {
  struct object *object = calloc(1, sizeof *object);
  object->state = ALIVE;
  return object;
}

static void readers_never_see_the_released(void) {
  enum { OBJECTS = 20000, READS = 100000 };
  unsigned retired = 0;
  pthread_t threads[READERS];
  rcu_init(&rcu);
  atomic_store(&current, make());
  for (int i = 0; i < READERS; i++) rcu_register(&rcu, &readers[i]);
  for (int i = 0; i < READERS; i++) CHECK(pthread_create(&threads[i], NULL, read_on, &readers[i]) == 0);
  for (; retired < OBJECTS || atomic_load(&reads) < READS; retired++) {
    struct object *old = atomic_exchange(&current, make());
    rcu_retire(&rcu, &old->retired, release);
    rcu_reclaim(&rcu, &rcu);
  }
  atomic_store(&over, true);
  for (int i = 0; i < READERS; i++) pthread_join(threads[i], NULL);
  CHECK(!rcu_reclaim(&rcu, &rcu));
  CHECK(released == retired);
  free(atomic_load(&current));
}

static void a_reader_that_does_not_move_holds_everything_up(void) {
  static struct rcu one;
  static struct rcu_reader slow;
  rcu_init(&one);
  rcu_register(&one, &slow);
  rcu_quiescent(&one, &slow);
  struct object *object = make();
  released = 0;
  rcu_retire(&one, &object->retired, release);
  CHECK(rcu_reclaim(&one, &rcu) && released == 0);
  rcu_quiescent(&one, &slow);
  CHECK(!rcu_reclaim(&one, &rcu) && released == 1);
  object = make();
  rcu_retire(&one, &object->retired, release);
  CHECK(rcu_reclaim(&one, &rcu));
  rcu_offline(&slow);
  CHECK(!rcu_reclaim(&one, &rcu) && released == 2);
}

const struct test rcu_tests[] = {
    {"rcu: readers never see what was released", readers_never_see_the_released},
    {"rcu: a reader holds back what it may see, one that sleeps does not", a_reader_that_does_not_move_holds_everything_up},
    {0},
};
