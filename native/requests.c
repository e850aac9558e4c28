// SPDX-License-Identifier: Apache-2.0
// The requests of the control protocol that change something, one function each; those that only ask are in answers.c.
#include <unistd.h>

#include "answers.h"
#include "engine.h"
#include "esp.h"
#include "steer.h"
#include "vault.h"
#include "wire.h"

#define FIRST_SPI 256 // RFC 4303 section 2.1: 1 … 255 are reserved, 0 is the non-ESP marker

static bool install_valid(const struct wire_install *m) {
  if (m->sa.direction > DIRECTION_OUT || m->sa.spi < FIRST_SPI) return false;
  if (m->selector_count < 1 || m->selector_count > 2) return false;
  bool has[2] = {false, false};
  for (unsigned i = 0; i < m->selector_count; i++) {
    struct pair pair = pair_from_wire(&m->selectors[i]);
    bool ip4 = addr_is_ip4(pair.local);
    if (ip4 != addr_is_ip4(pair.remote) || has[ip4]) return false;
    has[ip4] = true;
  }
  if (m->sa.direction == DIRECTION_OUT) return true;
  uint32_t window = m->replay_window;
  return window >= REPLAY_MIN && window <= REPLAY_MAX && (window & (window - 1)) == 0;
}

static struct peer *make_peer(const struct engine *e, const struct wire_underlay *wire) {
  struct peer *peer = vault_alloc(sizeof *peer);
  if (peer == NULL || udp_peer_address(peer, underlay_from_wire(wire), e->udp_ip6)) return peer;
  vault_free(peer);
  return NULL;
}

static enum message_status install(struct engine *e, const struct wire_install *m, const uint8_t *note) {
  if (!install_valid(m)) return STATUS_INVALID;
  // A key's sequence numbers must never start twice: an SA that is there stays as it is.
  if (table_find(&e->table, &m->sa) != NULL) return STATUS_EXISTS;
  if (e->table.count[0] + e->table.count[1] >= TABLE_MAX_SAS) return STATUS_FULL;
  struct peer *peer = make_peer(e, &m->sa.peer);
  if (peer == NULL) return STATUS_INVALID;
  struct sa_parameters parameters = {
      .direction = m->sa.direction,
      .spi = m->sa.spi,
      .pair_count = m->selector_count,
      .pairs = {pair_from_wire(&m->selectors[0]), pair_from_wire(&m->selectors[1])},
      .limits = m->lifetimes,
      .replay_window = m->replay_window,
      .key = m->key,
      .salt = m->salt,
      .note = (const char *)note,
      .note_length = m->note_length,
  };
  struct sa *sa = sa_create(&parameters, peer);
  if (sa == NULL) {
    vault_free(peer);
    return STATUS_FULL;
  }
  // An SA of both families is the thread's that its IPv4 pair is steered to.
  const struct pair *steered = &sa->pairs[sa->has[0] ? 0 : 1].pair;
  sa->lane = (sa->direction == DIRECTION_OUT ? steer_pair(steered) : steer_spi(sa->spi)) & (e->lanes - 1);
  atomic_store(&sa->most, paths_most(&e->paths, &peer->underlay));
  if (sa->direction == DIRECTION_OUT)
    outbound_install(&e->release, sa);
  else
    table_insert(&e->table, sa);
  return STATUS_OK;
}

static bool on_install(struct engine *e, const struct message *message) {
  struct wire_install m;
  if (message->length < sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  bool whole = m.note_length <= PROTOCOL_MAX_NOTE && message->length == sizeof m + m.note_length;
  if (whole) answer_done(e, m.id, install(e, &m, message->payload + sizeof m), false);
  explicit_bzero(&m, sizeof m);
  return whole;
}

// Answers the removal and frees: no thread holds the SA any more.
static void release_sa(struct rcu_retired *retired, void *context) {
  struct engine *e = context;
  struct sa *sa = (struct sa *)((uint8_t *)retired - offsetof(struct sa, retired));
  if (atomic_load(&sa->noticed)) engine_events(e); // it is linked there: say and unlink
  if (sa->remove_connection == e->connection.number) answer_done(e, sa->remove_request, STATUS_OK, false);
  sa_destroy(sa);
}

static bool on_remove(struct engine *e, const struct message *message) {
  struct wire_remove m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  struct sa *sa = table_find(&e->table, &m.sa);
  if (sa == NULL) {
    answer_done(e, m.id, STATUS_NO_SUCH_SA, false);
    return true;
  }
  table_remove(&e->table, sa);
  sa->remove_request = m.id;
  sa->remove_connection = e->connection.number;
  rcu_retire(&e->rcu, &sa->retired, release_sa);
  return true;
}

static void release_peer(struct rcu_retired *retired, void *context) {
  (void)context;
  vault_free((uint8_t *)retired - offsetof(struct peer, retired));
}

static enum message_status move_peer(struct engine *e, const struct wire_move_peer *m) {
  struct sa *sa = table_find(&e->table, &m->sa);
  if (sa == NULL) return STATUS_NO_SUCH_SA;
  struct wire_sa_id moved = m->sa;
  moved.peer = m->peer;
  struct sa *there = table_find(&e->table, &moved);
  if (there != NULL && there != sa) return STATUS_EXISTS;
  struct peer *peer = make_peer(e, &m->peer);
  if (peer == NULL) return STATUS_INVALID;
  atomic_store(&sa->most, paths_most(&e->paths, &peer->underlay));
  rcu_retire(&e->rcu, &table_move_peer(&e->table, sa, peer)->retired, release_peer);
  return STATUS_OK;
}

static bool on_move_peer(struct engine *e, const struct message *message) {
  struct wire_move_peer m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  answer_done(e, m.id, move_peer(e, &m), false);
  return true;
}

static bool on_fail(struct engine *e, const struct message *message) {
  struct wire_fail m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  struct pair pair = pair_from_wire(&m.pair);
  pthread_mutex_lock(&e->hold.lock);
  struct held_pair *held = hold_take(&e->hold, &pair);
  pthread_mutex_unlock(&e->hold.lock);
  if (held != NULL) {
    worker_clock(&e->workers[WORKER_CONTROL]);
    worker_drop(&e->workers[WORKER_CONTROL], DROP_HOLD_FAILED, held->packets, &(struct dropped){.pair = &pair});
    hold_free(held);
  }
  answer_done(e, m.id, STATUS_OK, false);
  return true;
}

static bool on_release(struct engine *e, const struct message *message) {
  struct wire_release m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  struct pair pair = pair_from_wire(&m.pair);
  outbound_give_back(&e->release, &pair);
  answer_done(e, m.id, STATUS_OK, false);
  return true;
}

static bool on_path_mtu(struct engine *e, const struct message *message) {
  struct wire_path_mtu m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  answer_done(e, m.id, paths_set(&e->paths, addr_from_ip6(m.address), m.mtu), false);
  for (struct sa *sa = e->table.oldest; sa != NULL; sa = sa->newer)
    atomic_store(&sa->most, paths_most(&e->paths, &atomic_load(&sa->peer)->underlay));
  return true;
}

static bool on_keepalive(struct engine *e, const struct message *message) {
  struct wire_keepalive m;
  struct peer peer;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  bool reachable = udp_peer_address(&peer, underlay_from_wire(&m.peer), e->udp_ip6);
  if (reachable) {
    e->release.udp.tos = e->release.udp.lane = 0;
    *udp_out_reserve(&e->release.udp, &peer, 1) = KEEPALIVE;
    udp_out_flush(&e->release.udp);
  }
  answer_done(e, m.id, reachable ? STATUS_OK : STATUS_INVALID, false);
  return true;
}

static void close_if_open(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static bool on_keep_socket(struct engine *e, const struct message *message) {
  struct wire_keep_socket m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  bool good = !m.keep || e->passed_fd >= 0;
  if (good) {
    close_if_open(&e->kept_fd);
    e->kept_fd = e->passed_fd;
    e->passed_fd = -1;
    if (!m.keep) close_if_open(&e->kept_fd);
    e->kernel_esp = m.keep;
  }
  answer_done(e, m.id, good ? STATUS_OK : STATUS_INVALID, false);
  return true;
}

static bool on_shutdown(struct engine *e, const struct message *message) {
  struct wire_request m;
  if (message->length != sizeof m) return false;
  memcpy(&m, message->payload, sizeof m);
  answer_done(e, m.id, STATUS_OK, false);
  e->ending = true;
  return true;
}

static bool request(struct engine *e, const struct message *message) {
  switch (message->type) {
    case MSG_INSTALL: return on_install(e, message);
    case MSG_REMOVE: return on_remove(e, message);
    case MSG_MOVE_PEER: return on_move_peer(e, message);
    case MSG_LIST: return answer_list(e, message);
    case MSG_STATISTICS: return answer_statistics(e, message);
    case MSG_FAIL: return on_fail(e, message);
    case MSG_SHUTDOWN: return on_shutdown(e, message);
    case MSG_RELEASE: return on_release(e, message);
    case MSG_PATH_MTU: return on_path_mtu(e, message);
    case MSG_KEEPALIVE: return on_keepalive(e, message);
    case MSG_KEEP_SOCKET: return on_keep_socket(e, message);
    default: return false;
  }
}

bool engine_requests(struct engine *e) {
  struct message message;
  size_t at = 0;
  enum frame frame = FRAME_NONE;
  bool good = true;
  while (good && connection_pending(&e->connection) < CONNECTION_BUSY &&
         (frame = connection_next(&e->connection, &at, &message)) == FRAME_MESSAGE)
    good = request(e, &message);
  connection_consume(&e->connection, at);
  return good && frame != FRAME_BAD && !e->connection.broken;
}

bool engine_reclaim(struct engine *e) { return rcu_reclaim(&e->rcu, e); }
