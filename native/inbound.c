// SPDX-License-Identifier: Apache-2.0
#include "inbound.h"

#include <errno.h>

#include "aead.h"
#include "esp.h"
#include "log.h"
#include "mtu.h"
#include "tos.h"

bool inbound_init(struct inbound *in, struct worker *worker, struct sa_table *table, const struct tun *tun,
                  int udp_fd) {
  memset(in, 0, sizeof *in);
  in->worker = worker;
  in->table = table;
  in->tun = *tun;
  in->coalescer.udp = tun->udp_offload;
  return udp_in_init(&in->udp, udp_fd);
}

void inbound_flush(struct inbound *in) { tun_write(&in->tun, &in->coalescer, in->worker); }

static void drop(struct inbound *in, enum drop reason, struct sa *sa, const struct underlay *from) {
  worker_drop(in->worker, reason, 1, &(struct dropped){.sa = sa, .from = from});
}

// Only the newest packet of an SA says where its peer is now: an older one may have been kept and sent from anywhere.
static void follow(struct inbound *in, struct sa *sa, const struct underlay *from) {
  const struct underlay *known = &atomic_load_explicit(&sa->peer, memory_order_acquire)->underlay;
  if (LIKELY(known->port == from->port && addr_equal(known->address, from->address))) return;
  worker_moved(in->worker, sa, from);
}

// Nothing of the SA is looked at: it is that thread's.
static void hand_over(struct inbound *in, unsigned lane, const uint8_t *data, size_t length, const struct underlay *from) {
  const struct handoff_note note = {.from = *from, .tos = in->outer_tos};
  if (handoff_put(in->handoff, in->lane, lane, data, length, &note))
    COUNT(in->worker->counters.handed_over, 1);
  else
    drop(in, DROP_HANDOFF_FULL, NULL, from);
}

void inbound_datagram(struct inbound *in, uint8_t *data, size_t length, const struct underlay *from) {
  struct worker *worker = in->worker;
  if (length == 1 && data[0] == KEEPALIVE) { // RFC 3948 section 2.3
    COUNT(worker->counters.keepalives, 1);
    return;
  }
  if (length < 4) return drop(in, DROP_UDP_TOO_SHORT, NULL, from);
  uint32_t spi = load_be32(data);
  if (spi == 0) return drop(in, DROP_NON_ESP, NULL, from); // RFC 3948 section 2.2
  if (length < ESP_MIN) return drop(in, DROP_UDP_TOO_SHORT, NULL, from);
  struct sa *sa = table_inbound(in->table, spi);
  if (UNLIKELY(sa == NULL)) return worker_unknown_spi(worker, spi, from);
  if (UNLIKELY(sa->lane != in->lane)) return hand_over(in, sa->lane, data, length, from);
  if (UNLIKELY(sa_expired(sa))) return drop(in, DROP_EXPIRED_IN, sa, from);

  struct esp_opened opened;
  uint64_t top = sa->replay.top;
  enum drop reason = esp_open(sa, data, length, &opened);
  if (UNLIKELY(reason != DROP_NONE)) return drop(in, reason, sa, from);
  if (sa->replay.top != top) follow(in, sa, from);
  if (UNLIKELY(!ecn_arrived(opened.inner, in->outer_tos))) return drop(in, DROP_ECN, sa, from);
  COUNT(worker->counters.opened_packets, 1);
  COUNT(worker->counters.opened_bytes, opened.length);
  sa_account(sa, 1, opened.length, worker->now_ms, worker->notices);
  uint32_t most = atomic_load_explicit(&sa->most, memory_order_relaxed);
  if (most != MTU_NO_LIMIT) mtu_clamp_mss(opened.inner, opened.length, most);
  if (coalesce_add(&in->coalescer, opened.inner, opened.length)) return;
  inbound_flush(in);
  coalesce_add(&in->coalescer, opened.inner, opened.length);
}

static uint32_t spi_at(const struct udp_received *r, uint32_t at) {
  return at < r->length && r->length - at >= ESP_MIN ? load_be32(r->data + at) : 0;
}

// When packets of many SAs come in turn, none of these is in the cache: what the next packets need is asked for while this
// one is opened. First an SA's bucket, then its first line, then the rest.
static void look_ahead(struct inbound *in, const struct udp_received *r, uint32_t at) {
  uint32_t spi = spi_at(r, at);
  uint32_t first = spi_at(r, at + r->segment), second = spi_at(r, at + 2 * r->segment), third = spi_at(r, at + 3 * r->segment);
  if (LIKELY(first == spi && second == spi && third == spi)) return;
  if (third != 0) table_warm(in->table, third);
  if (second != 0) __builtin_prefetch(table_first(in->table, second));
  if (first == 0 || first == spi) return;
  const struct sa *sa = table_inbound(in->table, first);
  if (sa != NULL) sa_warm(sa, aead->hot);
}

void inbound_message(struct inbound *in, const struct udp_received *received, const struct underlay *from) {
  uint32_t at = 0;
  in->outer_tos = received->tos;
  do {
    uint32_t rest = received->length - at;
    look_ahead(in, received, at);
    inbound_datagram(in, received->data + at, rest < received->segment ? rest : received->segment, from);
    at += received->segment;
  } while (at < received->length);
}

void inbound_handed(struct inbound *in) {
  for (unsigned from = 0; from < in->handoff->lanes; from++) {
    struct handoff_note note;
    size_t length;
    if (from == in->lane) continue;
    for (uint8_t *data; (data = handoff_next(in->handoff, from, in->lane, &length, &note)) != NULL;) {
      in->outer_tos = note.tos;
      inbound_datagram(in, data, length, &note.from);
    }
    inbound_flush(in); // what waits lies in the ring
    handoff_done(in->handoff, from, in->lane);
  }
}

// With several lanes a thread also wakes for what others hand over, and then there may be no message: EAGAIN.
static int receive(struct inbound *in) {
  if (in->handoff->lanes == 1) return udp_in_receive(&in->udp, true);
  int count = udp_in_receive(&in->udp, false);
  if (count >= 0 || errno != EAGAIN) return count;
  handoff_wait(in->handoff, in->lane, in->udp.fd);
  return udp_in_receive(&in->udp, false);
}

void *inbound_run(void *argument) {
  struct inbound *in = argument;
  struct worker *worker = in->worker;
  for (;;) {
    rcu_offline(&worker->reader);
    int count = receive(in);
    int error = errno;
    rcu_quiescent(worker->rcu, &worker->reader);
    worker_clock(worker);
    if (count < 0) {
      // ICMP errors surface here too; only a broken descriptor is the end.
      if (error == EBADF || error == ENOTSOCK) log_exit("the UDP socket is gone", error);
      count = 0;
    } else {
      COUNT(worker->counters.udp_receive_calls, 1);
      COUNT(worker->counters.udp_messages_received, (uint64_t)count);
    }
    for (int i = 0; i < count; i++) {
      struct udp_received received = udp_in_message(&in->udp, i);
      struct underlay from = udp_in_sender(&in->udp, i);
      inbound_message(in, &received, &from);
    }
    inbound_flush(in);
    inbound_handed(in);
    handoff_wake(in->handoff, in->lane);
  }
  return NULL;
}
