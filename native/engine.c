// SPDX-License-Identifier: Apache-2.0
#include "engine.h"

#include <sys/random.h>
#include <unistd.h>

bool engine_init(struct engine *e, const struct engine_options *options, const struct tun *tun, int udp_fd, bool gro,
                 int wake_fd) {
  uint64_t random[4];
  memset(e, 0, sizeof *e);
  if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) return false;
  e->pid = (uint32_t)getpid();
  e->instance = random[3];
  e->gro = gro;
  e->udp_ip6 = udp_socket_is_ip6(udp_fd) == 1;
  e->notices.wake_fd = wake_fd;
  rcu_init(&e->rcu);
  hold_init(&e->hold, &options->hold, random[2]);
  for (unsigned i = 0; i < WORKER_COUNT; i++) worker_init(&e->workers[i], &e->rcu, &e->notices);
  return table_init(&e->table, random) &&
         outbound_init(&e->outbound, &e->workers[WORKER_OUTBOUND], &e->table, &e->hold, tun, udp_fd) &&
         outbound_init(&e->release, &e->workers[WORKER_CONTROL], &e->table, &e->hold, tun, udp_fd) &&
         inbound_init(&e->inbound, &e->workers[WORKER_INBOUND], &e->table, tun, udp_fd);
}
