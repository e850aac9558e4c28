// SPDX-License-Identifier: Apache-2.0
// The whole engine: what its threads share. Requests and events of the control protocol work on it without I/O of their own.
#pragma once

#include "connection.h"
#include "hold.h"
#include "inbound.h"
#include "outbound.h"
#include "paths.h"
#include "rcu.h"
#include "table.h"
#include "worker.h"

enum { WORKER_OUTBOUND, WORKER_INBOUND, WORKER_CONTROL, WORKER_COUNT };

struct engine {
  struct rcu rcu;
  struct sa_notices notices;
  struct sa_table table;
  struct hold hold;
  struct worker workers[WORKER_COUNT]; // the control thread's seals what was held
  struct outbound outbound;
  struct outbound release; // the control thread's
  struct inbound inbound;
  bool udp_ip6, gro, kernel_esp;
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
};

// Makes everything but threads. `tun` is configured, `udp_fd` too. False when memory ran out.
bool engine_init(struct engine *engine, const struct engine_options *options, const struct tun *tun, int udp_fd, bool gro,
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
