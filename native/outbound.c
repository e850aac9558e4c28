// SPDX-License-Identifier: Apache-2.0
#include "outbound.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "aead.h"
#include "esp.h"
#include "log.h"
#include "mtu.h"
#include "steer.h"
#include "tos.h"

// Packets read before what was queued is sent, whatever else waits: bounds the delay, and the time to a quiescent state.
#define BATCH 64
#define COMPLAINTS_PER_SECOND 1000
// A whole packet, and beside it a fragment of it.
#define SCRATCH (2 * 65536)

bool outbound_init(struct outbound *o, struct worker *worker, struct sa_table *table, struct hold *hold,
                   const struct tun *tun, int udp_fd) {
  *o = (struct outbound){.worker = worker, .table = table, .hold = hold, .tun = *tun};
  o->buffer = malloc(TUN_BUFFER);
  o->scratch = malloc(SCRATCH);
  return o->buffer != NULL && o->scratch != NULL && udp_out_init(&o->udp, udp_fd, worker);
}

// Seals all segments of a packet that the SA has admitted.
static void seal(struct outbound *o, struct sa *sa, const struct super *super, uint32_t most) {
  const struct peer *peer = atomic_load_explicit(&sa->peer, memory_order_acquire);
  uint8_t next_header = super->version == 4 ? NEXT_HEADER_IP4 : NEXT_HEADER_IP6;
  uint64_t bytes = 0;
  o->udp.tos = tos_of(super->packet);
  o->udp.lane = (uint8_t)steer_spi(sa->spi);
  for (uint32_t i = 0; i < super->count; i++) {
    uint32_t inner = segment_length(super, i);
    uint8_t *packet = udp_out_reserve(&o->udp, peer, (uint32_t)esp_sealed_length(inner));
    segment_write(super, i, packet + SA_HEADER);
    if (most != MTU_NO_LIMIT && super->count == 1) mtu_clamp_mss(packet + SA_HEADER, inner, most);
    esp_seal(sa, packet, inner, next_header);
    bytes += inner;
  }
  COUNT(o->worker->counters.sealed_packets, super->count);
  COUNT(o->worker->counters.sealed_bytes, bytes);
  sa_account(sa, super->count, bytes, o->worker->now_ms, o->worker->notices);
}

// One packet that stands alone, as it is.
static void seal_plain(struct outbound *o, struct sa *sa, const uint8_t *packet, size_t length) {
  const struct peer *peer = atomic_load_explicit(&sa->peer, memory_order_acquire);
  uint8_t *to = udp_out_reserve(&o->udp, peer, (uint32_t)esp_sealed_length(length));
  memcpy(to + SA_HEADER, packet, length);
  esp_seal(sa, to, length, packet[0] >> 4 == 4 ? NEXT_HEADER_IP4 : NEXT_HEADER_IP6);
  COUNT(o->worker->counters.sealed_packets, 1);
  COUNT(o->worker->counters.sealed_bytes, length);
  sa_account(sa, 1, length, o->worker->now_ms, o->worker->notices);
}

// What may be cut is cut (RFC 791); of what may not the sender is told, at a bounded rate.
static void too_big(struct outbound *o, struct sa *sa, const struct super *super, uint32_t most) {
  uint8_t *packet = o->scratch, *piece = o->scratch + SCRATCH / 2;
  struct worker *worker = o->worker;
  if (mtu_may_fragment(super->packet) && most >= MTU_LEAST / 2) {
    o->udp.tos = tos_of(super->packet);
    o->udp.lane = (uint8_t)steer_spi(sa->spi);
    for (uint32_t i = 0; i < super->count; i++) {
      uint32_t at = 0, length = segment_write(super, i, packet);
      COUNT(worker->counters.mtu_cut, 1);
      for (size_t n; (n = mtu_fragment(piece, packet, length, most, &at)) > 0;) {
        if (sa_admits(sa, 1, worker->notices)) seal_plain(o, sa, piece, n);
        else worker_drop(worker, DROP_TOO_BIG, 1, &(struct dropped){.sa = sa, .pair = &super->pair});
      }
    }
    return;
  }
  worker_drop(worker, DROP_TOO_BIG, super->count, &(struct dropped){.sa = sa, .pair = &super->pair});
  if (o->complaint_second != worker->now_ms / 1000) {
    o->complaint_second = worker->now_ms / 1000;
    o->complaints = 0;
  }
  if (o->complaints == COMPLAINTS_PER_SECOND) return;
  const struct virtio_net_hdr plain = {0};
  uint32_t length = segment_write(super, 0, packet);
  size_t complaint = mtu_complaint(piece + sizeof plain, packet, length, most);
  if (complaint == 0) return;
  memcpy(piece, &plain, sizeof plain);
  o->complaints++;
  if (tun_give_back(&o->tun, piece, sizeof plain + complaint)) COUNT(worker->counters.mtu_told, 1);
}

// A packet that the SA has admitted.
static void carry(struct outbound *o, struct sa *sa, const struct super *super) {
  uint32_t most = atomic_load_explicit(&sa->most, memory_order_relaxed);
  if (LIKELY(segment_length(super, 0) <= most)) seal(o, sa, super, most);
  else too_big(o, sa, super, most);
}

// Reads one packet's headers; drops it and returns false if it cannot be carried.
static bool parse(struct outbound *o, struct super *super, const uint8_t *data, size_t length) {
  struct virtio_net_hdr request;
  if (length < sizeof request) {
    worker_drop(o->worker, DROP_TUN_MALFORMED, 1, &(struct dropped){0});
    return false;
  }
  memcpy(&request, data, sizeof request);
  enum drop drop = segment_parse(super, &request, data + sizeof request, length - sizeof request);
  bool known = drop != DROP_TUN_MALFORMED;
  if (drop == DROP_NONE && esp_sealed_length(segment_length(super, 0)) > UDP_MAX_PAYLOAD) drop = DROP_TOO_BIG;
  if (drop == DROP_NONE) return true;
  worker_drop(o->worker, drop, 1, &(struct dropped){.pair = known ? &super->pair : NULL});
  return false;
}

// The pair's SA: one that admits the packet, or another thread's, of which nothing is looked at.
static struct sa *admitted(struct outbound *o, const struct super *super) {
  struct sa *sa;
  // An SA that reaches its limit here is skipped by the next look-up.
  while ((sa = table_outbound(o->table, &super->pair)) != NULL) {
    if (UNLIKELY(sa->lane != o->lane)) return sa;
    if (sa->spi != o->last_spi) sa_warm(sa, aead->hot); // while the packet is copied
    o->last_spi = sa->spi;
    if (sa_admits(sa, super->count, o->worker->notices)) return sa;
  }
  return NULL;
}

// A packet with the SA that was found for it.
static void carry_or_hand_over(struct outbound *o, struct sa *sa, const struct super *super, const uint8_t *data,
                               size_t length) {
  if (LIKELY(sa->lane == o->lane)) return carry(o, sa, super);
  if (handoff_put(o->handoff, o->lane, sa->lane, data, length, NULL))
    COUNT(o->worker->counters.handed_over, 1);
  else
    worker_drop(o->worker, DROP_HANDOFF_FULL, 1, &(struct dropped){.pair = &super->pair});
}

// No SA: look again under the lock that installing takes, then keep the packet.
static void hold_or_seal(struct outbound *o, const struct super *super, const uint8_t *data, size_t length) {
  bool fresh = false;
  enum drop drop = DROP_NONE;
  udp_out_flush(&o->udp); // what is queued comes before anything the control thread may send for this pair
  pthread_mutex_lock(&o->hold->lock);
  struct sa *sa = admitted(o, super);
  if (sa == NULL) drop = hold_add(o->hold, &super->pair, data, length, o->worker->now_ms, &fresh);
  pthread_mutex_unlock(&o->hold->lock);
  if (sa != NULL) return carry_or_hand_over(o, sa, super, data, length);
  uint64_t one = 1;
  if (fresh && write(o->worker->notices->wake_fd, &one, sizeof one) < 0) return; // full counter: awake already
  if (drop != DROP_NONE) worker_drop(o->worker, drop, 1, &(struct dropped){.pair = &super->pair});
}

void outbound_packet(struct outbound *o, const uint8_t *data, size_t length) {
  struct super super;
  if (!parse(o, &super, data, length)) return;
  if (super.count > 1) COUNT(o->worker->counters.tun_super_packets, 1);
  struct sa *sa = admitted(o, &super);
  if (LIKELY(sa != NULL))
    carry_or_hand_over(o, sa, &super, data, length);
  else
    hold_or_seal(o, &super, data, length);
}

bool outbound_handed(struct outbound *o) {
  bool any = false;
  for (unsigned from = 0; from < o->handoff->lanes; from++) {
    struct handoff_note note;
    size_t length;
    if (from == o->lane) continue;
    for (uint8_t *data; (data = handoff_next(o->handoff, from, o->lane, &length, &note)) != NULL; any = true)
      outbound_packet(o, data, length);
    handoff_done(o->handoff, from, o->lane);
  }
  return any;
}

static void release(struct outbound *o, struct sa *sa, struct held_pair *held) {
  for (struct held_packet *packet = held->first; packet != NULL; packet = packet->next) {
    struct super super;
    if (!parse(o, &super, packet->data, packet->length)) continue;
    if (sa_admits(sa, super.count, o->worker->notices))
      carry(o, sa, &super);
    else
      worker_drop(o->worker, DROP_HOLD_FAILED, 1, &(struct dropped){.sa = sa, .pair = &held->pair});
  }
  udp_out_flush(&o->udp);
  hold_free(held);
}

void outbound_install(struct outbound *o, struct sa *sa) {
  worker_clock(o->worker);
  pthread_mutex_lock(&o->hold->lock);
  // Not published yet, the SA is this thread's alone; a packet that misses it meanwhile waits for the lock.
  for (unsigned family = 0; family < 2; family++) {
    struct held_pair *held = sa->has[family] ? hold_take(o->hold, &sa->pairs[family].pair) : NULL;
    if (held != NULL) release(o, sa, held);
  }
  table_insert(o->table, sa);
  pthread_mutex_unlock(&o->hold->lock);
}

void outbound_give_back(struct outbound *o, const struct pair *pair) {
  worker_clock(o->worker);
  pthread_mutex_lock(&o->hold->lock);
  struct held_pair *held = hold_take(o->hold, pair);
  pthread_mutex_unlock(&o->hold->lock);
  if (held == NULL) return;
  for (struct held_packet *packet = held->first; packet != NULL; packet = packet->next)
    if (!tun_give_back(&o->tun, packet->data, packet->length))
      worker_drop(o->worker, DROP_TUN_WRITE, 1, &(struct dropped){.pair = pair});
  hold_free(held);
}

// The first packet of a batch. With several lanes a thread also wakes for what others hand over, and then there may be none.
static ssize_t first_packet(struct outbound *o) {
  if (o->handoff->lanes == 1) return tun_read(&o->tun, o->buffer, true);
  ssize_t length = tun_read(&o->tun, o->buffer, false);
  if (length >= 0 || errno != EAGAIN) return length;
  handoff_wait(o->handoff, o->lane, o->tun.fd);
  return tun_read(&o->tun, o->buffer, false);
}

void *outbound_run(void *argument) {
  struct outbound *o = argument;
  struct worker *worker = o->worker;
  for (;;) {
    rcu_offline(&worker->reader);
    ssize_t length = first_packet(o);
    int error = errno;
    rcu_quiescent(worker->rcu, &worker->reader);
    worker_clock(worker);
    if (length < 0 && error != EINTR && error != EAGAIN) log_exit("the TUN device is gone", error);
    for (unsigned n = 1; length >= 0; n++) {
      COUNT(worker->counters.tun_reads, 1);
      outbound_packet(o, o->buffer, (size_t)length);
      if (n == BATCH) break;
      length = tun_read(&o->tun, o->buffer, false);
      if (length < 0) COUNT(worker->counters.tun_read_empty, 1);
    }
    outbound_handed(o);
    udp_out_flush(&o->udp);
    handoff_wake(o->handoff, o->lane);
  }
  return NULL;
}
