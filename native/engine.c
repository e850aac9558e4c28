// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <sys/random.h>
#include <unistd.h>

static bool lane_init(struct engine *e, unsigned lane, const struct engine_ends *ends) {
  struct worker *sealing = &e->workers[WORKER_OUTBOUND + lane], *opening = &e->workers[WORKER_INBOUND + lane];
  worker_init(sealing, &e->rcu, &e->notices);
  worker_init(opening, &e->rcu, &e->notices);
  if (!outbound_init(&e->outbound[lane], sealing, &e->table, &e->hold, &ends->tun, ends->udp_fd) ||
      !inbound_init(&e->inbound[lane], opening, &e->table, &ends->tun, ends->udp_fd))
    return false;
  e->outbound[lane].lane = e->inbound[lane].lane = (uint8_t)lane;
  e->outbound[lane].handoff = &e->sealing;
  e->inbound[lane].handoff = &e->opening;
  return true;
}

bool engine_init(struct engine *e, const struct engine_options *options, const struct engine_ends *ends, bool gro,
                 int wake_fd) {
  uint64_t random[4];
  memset(e, 0, sizeof *e);
  if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return false;
  e->pid = (uint32_t)getpid();
  e->instance = random[3];
  e->gro = gro;
  e->passed_fd = e->kept_fd = -1;
  e->lanes = options->lanes;
  e->udp_ip6 = udp_socket_is_ip6(ends->udp_fd) == 1;
  e->notices.wake_fd = wake_fd;
  rcu_init(&e->rcu);
  hold_init(&e->hold, &options->hold, random[2]);
  worker_init(&e->workers[WORKER_CONTROL], &e->rcu, &e->notices);
  if (!table_init(&e->table, random) || !handoff_init(&e->sealing, e->lanes) || !handoff_init(&e->opening, e->lanes))
    return false;
  for (unsigned lane = 0; lane < e->lanes; lane++)
    if (!lane_init(e, lane, &ends[lane])) return false;
  return outbound_init(&e->release, &e->workers[WORKER_CONTROL], &e->table, &e->hold, &ends->tun, ends->udp_fd);
}
