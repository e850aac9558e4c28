// SPDX-License-Identifier: Apache-2.0
// The whole engine: what its threads share. Requests and events of the control protocol work on it without I/O of their own.
#pragma once

#include "connection.h"
#include "handoff.h"
#include "hold.h"
#include "inbound.h"
#include "outbound.h"
#include "paths.h"
#include "rcu.h"
#include "table.h"
#include "worker.h"

// A lane is one thread that seals, or one that opens; there are as many of either.
enum {
  WORKER_CONTROL,
  WORKER_OUTBOUND, // of the first lane, the others' behind it
  WORKER_INBOUND = WORKER_OUTBOUND + LANES_MAX,
  WORKER_COUNT = WORKER_INBOUND + LANES_MAX
};

struct engine {
  struct rcu rcu;
  struct sa_notices notices;
  struct sa_table table;
  struct hold hold;
  struct worker workers[WORKER_COUNT]; // the control thread's seals what was held
  unsigned lanes;
  struct handoff sealing, opening; // between lanes
  struct outbound outbound[LANES_MAX];
  struct outbound release; // the control thread's
  struct inbound inbound[LANES_MAX];
  bool udp_ip6, gro, kernel_esp;
  int passed_fd; // came over the connection and was not asked for yet; -1 none
  int kept_fd;   // the kernel's socket; -1 none
  uint32_t pid;
  uint64_t instance;
  bool ending; // MSG_SHUTDOWN was answered

  // Control thread only.
  struct connection connection;
  uint64_t drops_reported[DROP_COUNT];
  struct paths paths;
};

struct engine_options {
  const char *aead;
  struct hold_limits hold;
  unsigned lanes; // 1, 2, 4 or 8
};

// The far ends of one lane.
struct engine_ends {
  struct tun tun;
  int udp_fd;
};

// Makes everything but threads. The ends, one for each lane, are configured. False when memory ran out.
bool engine_init(struct engine *engine, const struct engine_options *options, const struct engine_ends *ends, bool gro,
                 int wake_fd);
// Carries out the requests in the connection's input. False when the connection has to be closed.
bool engine_requests(struct engine *engine);
// Greets a new connection and repeats what it may have missed: acquires and limits reached.
void engine_greet(struct engine *engine);
// Says what there is to say: acquires, limits, drops.
void engine_events(struct engine *engine);
// Drops what was held too long. Returns milliseconds until the next packet expires, -1 if none waits.
int engine_expire(struct engine *engine);
// Frees SAs that no thread uses any more and answers their removal. Returns whether some still wait.
bool engine_reclaim(struct engine *engine);
// A counter over all threads.
uint64_t engine_drops(const struct engine *engine, enum drop reason);
