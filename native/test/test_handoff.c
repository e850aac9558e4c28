// SPDX-License-Identifier: Apache-2.0
// Packets from thread to thread: the rings by themselves, and an engine with two lanes.
#include "../handoff.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "../esp.h"
#include "../steer.h"
#include "../wire.h"
#include "bed.h"
#include "check.h"
#include "talk.h"

static const struct underlay sender = {{{0, 0x010200c0ffff0000}}, 4500};
static uint8_t frame[80000];

static void in_order_and_whole_until_full(void) {
  static struct handoff h;
  static uint8_t packet[70000];
  CHECK(handoff_init(&h, 2));
  struct handoff_note note;
  size_t length;
  CHECK(handoff_next(&h, 0, 1, &length, &note) == NULL);
  uint32_t put = 0, taken = 0;
  for (int round = 0; round < 2000; round++) {
    for (uint32_t n = random_below(8); n > 0; n--) {
      size_t size = random_below(4) == 0 ? random_below(66000) : random_below(1500);
      memset(packet, (int)put, size);
      const struct handoff_note with = {.from = {.port = (uint16_t)put}, .tos = (uint8_t)put};
      if (!handoff_put(&h, 0, 1, packet, size, &with)) break;
      CHECK(size <= 66000);
      put++;
    }
    for (uint32_t n = random_below(8); n > 0; n--) {
      uint8_t *data = handoff_next(&h, 0, 1, &length, &note);
      if (data == NULL) break;
      CHECK(note.from.port == (uint16_t)taken && note.tos == (uint8_t)taken);
      for (size_t i = 0; i < length; i++) CHECK(data[i] == (uint8_t)taken);
      taken++;
    }
    // What was looked at is not given back before it is said.
    if (random_below(2) == 0) handoff_done(&h, 0, 1);
  }
  while (handoff_next(&h, 0, 1, &length, &note) != NULL) taken++;
  CHECK(put == taken && put > 1000);
  handoff_done(&h, 0, 1);
  unsigned room = 0;
  while (handoff_put(&h, 0, 1, packet, 60000, NULL)) room++;
  CHECK(room >= 7 && !handoff_put(&h, 0, 1, packet, HANDOFF_RING, NULL));
  CHECK(handoff_next(&h, 1, 0, &length, &note) == NULL); // the other way is another ring
}

#define PASSED 200000

static void *write_numbers(void *argument) {
  struct handoff *h = argument;
  for (uint32_t i = 0; i < PASSED; i++) {
    while (!handoff_put(h, 0, 1, (const uint8_t *)&i, sizeof i, NULL)) handoff_wake(h, 0);
    if (i % 64 == 0) handoff_wake(h, 0);
  }
  handoff_wake(h, 0);
  return NULL;
}

static void a_sleeping_thread_is_woken(void) {
  static struct handoff h;
  int nothing[2];
  pthread_t thread;
  CHECK(handoff_init(&h, 2) && pipe(nothing) == 0);
  CHECK(pthread_create(&thread, NULL, write_numbers, &h) == 0);
  uint32_t next = 0;
  while (next < PASSED) {
    struct handoff_note note;
    size_t length;
    handoff_wait(&h, 1, nothing[0]);
    for (uint8_t *data; (data = handoff_next(&h, 0, 1, &length, &note)) != NULL; next++)
      CHECK(length == sizeof next && memcmp(data, &next, sizeof next) == 0);
    handoff_done(&h, 0, 1);
  }
  pthread_join(thread, NULL);
  close(nothing[0]);
  close(nothing[1]);
}

static void steering(void) {
  CHECK(steer_spi(0x00001235) == 0 && steer_spi(0x40001235) == 1 && steer_spi(0x80001236) == 2 && steer_spi(0xc0000fff) == 7);
  CHECK(steer_spi(0x20000101) == 0); // of one thread, or the kernel's
  // Both families' pairs of two pods come to one thread, and pairs are spread.
  unsigned seen[LANES_MAX] = {0};
  for (unsigned a = 2; a < 34; a++)
    for (unsigned b = 2; b < 34; b++) {
      const uint8_t local4[4] = {10, 244, 1, (uint8_t)a}, remote4[4] = {10, 244, 2, (uint8_t)b};
      uint8_t local6[16] = {0xfd, 0, 1}, remote6[16] = {0xfd, 0, 2};
      local6[15] = (uint8_t)a;
      remote6[15] = (uint8_t)b;
      const struct pair four = {addr_from_ip4(local4), addr_from_ip4(remote4)};
      const struct pair six = {addr_from_ip6(local6), addr_from_ip6(remote6)};
      CHECK(steer_pair(&four) == steer_pair(&six));
      seen[steer_pair(&four) % LANES_MAX]++;
    }
  for (unsigned lane = 0; lane < LANES_MAX; lane++) CHECK(seen[lane] > 1024 / LANES_MAX / 2);
}

static size_t udp_frame(uint8_t version, uint8_t fill) {
  struct virtio_net_hdr header = {0};
  const struct bed_packet b = {.version = version, .protocol = 17, .payload = 100, .fill = fill};
  memcpy(frame, &header, sizeof header);
  return sizeof header + bed_build(frame + sizeof header, &b);
}

static void an_sa_stays_with_its_thread(void) {
  struct engine *e = bed_engine_of(2);
  talk_connect(e);
  struct wire_install out = talk_install(DIRECTION_OUT, 0x40000701), in = talk_install(DIRECTION_IN, 0x40000701);
  talk_send_install(e, &in);
  talk_send_install(e, &out);
  CHECK(talk_status(e, out.id) == STATUS_OK);
  unsigned sealing = steer_pair(&bed_pair4) & 1, other = 1 - sealing;
  CHECK(table_outbound(&e->table, &bed_pair4)->lane == sealing && table_inbound(&e->table, 0x40000701)->lane == 1);
  // Out of the wrong queue and out of the right one: all are sealed by one thread, which counts them.
  outbound_packet(&e->outbound[other], frame, udp_frame(4, 0));
  outbound_packet(&e->outbound[other], frame, udp_frame(6, 1));
  CHECK(table_outbound(&e->table, &bed_pair4)->sequence == 0 && e->outbound[other].udp.count == 0);
  CHECK(e->workers[WORKER_OUTBOUND + other].counters.handed_over == 2);
  CHECK(outbound_handed(&e->outbound[sealing]) && !outbound_handed(&e->outbound[sealing]));
  outbound_packet(&e->outbound[sealing], frame, udp_frame(4, 2));
  udp_out_flush(&e->outbound[sealing].udp);
  CHECK(table_outbound(&e->table, &bed_pair4)->sequence == 3);
  CHECK(e->workers[WORKER_OUTBOUND + sealing].counters.sealed_packets == 3);
  // Into the socket of the wrong thread: the right one opens them.
  unsigned packets = 0;
  for (unsigned i = 0; i < sent.count; i++) {
    struct udp_received received = {sent.packets[i].data, (uint32_t)sent.packets[i].length, sent.packets[i].segment, 0};
    if (received.segment == 0) received.segment = received.length;
    inbound_message(&e->inbound[0], &received, &sender);
    packets += (received.length + received.segment - 1) / received.segment;
  }
  inbound_flush(&e->inbound[0]);
  CHECK(packets == 3 && written.count == 0 && e->workers[WORKER_INBOUND].counters.handed_over == 3);
  inbound_handed(&e->inbound[1]);
  CHECK(e->workers[WORKER_INBOUND + 1].counters.opened_packets == 3 && written.count > 0);
  // A ring that nobody empties is a drop with a reason.
  while (e->workers[WORKER_OUTBOUND + other].counters.drops[DROP_HANDOFF_FULL] == 0)
    outbound_packet(&e->outbound[other], frame, udp_frame(4, 0));
  CHECK(e->workers[WORKER_OUTBOUND + other].counters.handed_over > 1000);
}

static void held_packets_of_any_thread_leave_in_order(void) {
  struct engine *e = bed_engine_of(2);
  talk_connect(e);
  for (uint8_t i = 0; i < 4; i++) outbound_packet(&e->outbound[i & 1], frame, udp_frame(4, i));
  engine_events(e);
  talk_expect(e, MSG_ACQUIRE);
  struct wire_install out = talk_install(DIRECTION_OUT, 700);
  talk_send_install(e, &out);
  CHECK(talk_status(e, out.id) == STATUS_OK && e->hold.packet_count == 0 && sent.count == 1);
  CHECK(table_outbound(&e->table, &bed_pair4)->sequence == 4);
  for (unsigned i = 0; i < 4; i++)
    CHECK(load_be32(sent.packets[0].data + i * sent.packets[0].segment + 4) == i + 1); // sequence numbers, low half
}

// Packets for different threads of a receiver do not share a message, those of one thread do, and each SA's keep their order.
static void messages_are_of_one_thread(void) {
  struct engine *e = bed_engine();
  struct sa *sas[4];
  for (uint32_t i = 0; i < 4; i++) sas[i] = bed_sa(DIRECTION_OUT, 0x40000700 + i);
  for (unsigned i = 0; i < 40; i++) {
    struct sa *sa = sas[i % 4];
    e->outbound->udp.lane = (uint8_t)steer_spi(sa->spi);
    uint8_t *to = udp_out_reserve(&e->outbound->udp, atomic_load(&sa->peer), (uint32_t)esp_sealed_length(100));
    esp_seal(sa, to, 100, NEXT_HEADER_IP4);
  }
  udp_out_flush(&e->outbound->udp);
  e->outbound->udp.lane = 0;
  CHECK(sent.count == 2);
  uint32_t last[4] = {0};
  for (unsigned m = 0; m < 2; m++)
    for (size_t at = 0; at < sent.packets[m].length; at += sent.packets[m].segment) {
      uint32_t spi = load_be32(sent.packets[m].data + at), sequence = load_be32(sent.packets[m].data + at + 4);
      CHECK(steer_spi(spi) == m && sequence == last[spi & 3] + 1);
      last[spi & 3] = sequence;
    }
  for (unsigned i = 0; i < 4; i++) {
    CHECK(last[i] == 10);
    sa_destroy(sas[i]);
  }
}

const struct test handoff_tests[] = {
    {"handoff: packets come in order and whole, until a ring is full", in_order_and_whole_until_full},
    {"handoff: a sleeping thread is woken for each", a_sleeping_thread_is_woken},
    {"handoff: SPIs and pairs say whose packets are", steering},
    {"handoff: an SA stays with its thread, wherever packets come from", an_sa_stays_with_its_thread},
    {"handoff: held packets of any thread leave in order", held_packets_of_any_thread_leave_in_order},
    {"handoff: messages are of one of the receiver's threads", messages_are_of_one_thread},
    {0},
};
