// SPDX-License-Identifier: Apache-2.0
// Packets through the whole engine but for its threads: from the TUN device to the socket and back, held and released.
#include <errno.h>
#include <stdlib.h>

#include "../esp.h"
#include "../inet.h"
#include "../wire.h"
#include "bed.h"
#include "check.h"
#include "talk.h"

static uint8_t frame[80000];
static const struct underlay sender = {{{0, 0x010200c0ffff0000}}, 4500};

// What the TUN device would give for this packet.
static size_t tun_frame(const struct bed_packet *b, uint16_t mss) {
  struct virtio_net_hdr header = {0};
  size_t length = bed_build(frame + sizeof header, b);
  if (mss != 0) header = bed_gso(frame + sizeof header, length, mss);
  memcpy(frame, &header, sizeof header);
  return sizeof header + length;
}

// Gives everything that was sent to the engine's own receiving side.
static void loop_back(struct engine *e) {
  for (unsigned i = 0; i < sent.count; i++) {
    size_t segment = sent.packets[i].segment == 0 ? sent.packets[i].length : sent.packets[i].segment;
    for (size_t at = 0; at < sent.packets[i].length; at += segment) {
      size_t rest = sent.packets[i].length - at;
      inbound_datagram(e->inbound, sent.packets[i].data + at, rest < segment ? rest : segment, &sender);
    }
  }
  inbound_flush(e->inbound);
}

static void a_super_packet_arrives_as_one(void) {
  for (int version = 4; version <= 6; version += 2) {
    struct engine *e = bed_engine();
    table_insert(&e->table, bed_sa(DIRECTION_OUT, 700));
    table_insert(&e->table, bed_sa(DIRECTION_IN, 700));
    const struct bed_packet b = {.version = (uint8_t)version, .protocol = PROTOCOL_TCP, .flags = TCP_ACK | TCP_PSH,
                                 .payload = 40 * 1352, .options = 12};
    size_t length = tun_frame(&b, 1352);
    outbound_packet(e->outbound, frame, length);
    udp_out_flush(&e->outbound->udp);
    CHECK(sent.count == 1 && sent.packets[0].segment == esp_sealed_length(1352 + 32 + (version == 4 ? 20 : 40)));
    loop_back(e);
    CHECK(written.count == 1 && written.packets[0].length == length);
    // Byte for byte what went in: the virtio header asks the receiving kernel for what the sending one left to us.
    struct virtio_net_hdr in, out;
    memcpy(&in, frame, sizeof in);
    memcpy(&out, written.packets[0].data, sizeof out);
    CHECK(out.gso_type == in.gso_type && out.gso_size == in.gso_size && out.csum_start == in.csum_start);
    CHECK(memcmp(written.packets[0].data + sizeof in, frame + sizeof in, length - sizeof in) == 0);
    CHECK(e->workers[WORKER_OUTBOUND].counters.sealed_packets == 40);
    CHECK(e->workers[WORKER_INBOUND].counters.opened_packets == 40);
  }
}

static void dropped_by_reason(void) {
  struct engine *e = bed_engine();
  struct counters *in = &e->workers[WORKER_INBOUND].counters;
  uint8_t junk[200] = {0};
#define DROPPED(reason, length)                                  \
  do {                                                           \
    uint64_t before = in->drops[reason];                         \
    inbound_datagram(e->inbound, junk, length, &sender);        \
    CHECK(in->drops[reason] == before + 1);                      \
  } while (0)
  DROPPED(DROP_UDP_TOO_SHORT, 0);
  DROPPED(DROP_UDP_TOO_SHORT, 3);
  DROPPED(DROP_NON_ESP, 200);
  junk[0] = 0xff;
  inbound_datagram(e->inbound, junk, 1, &sender);
  CHECK(in->keepalives == 1);
  DROPPED(DROP_UDP_TOO_SHORT, ESP_MIN - 1);
  DROPPED(DROP_UNKNOWN_SPI, 200);
  const struct wire_lifetimes one = {SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT, 1};
  table_insert(&e->table, bed_sa_limited(DIRECTION_IN, 700, &one));
  store_be32(junk, 700);
  junk[7] = 5;
  DROPPED(DROP_AUTHENTICATION, 200);
  struct sa *out = bed_sa(DIRECTION_OUT, 700);
  table_insert(&e->table, out);
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 10};
  for (int i = 0; i < 2; i++) outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  udp_out_flush(&e->outbound->udp);
  loop_back(e);
  CHECK(written.count == 1 && in->drops[DROP_EXPIRED_IN] == 1);
  CHECK(table_inbound(&e->table, 700)->drops[DROP_AUTHENTICATION] == 1);
}

static struct wire_acquire expect_acquire(struct engine *e) {
  struct wire_acquire acquire;
  engine_events(e);
  memcpy(&acquire, talk_expect(e, MSG_ACQUIRE).payload, sizeof acquire);
  return acquire;
}

static void first_packets_wait_and_go_in_order(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 10};
  for (uint8_t i = 0; i < 3; i++) {
    b.fill = i;
    outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  }
  udp_out_flush(&e->outbound->udp);
  CHECK(sent.count == 0 && e->hold.packet_count == 3);
  struct wire_acquire acquire = expect_acquire(e);
  struct pair pair = pair_from_wire(&acquire.pair);
  CHECK(pair_equal(&pair, &bed_pair4));
  engine_events(e);
  struct message message;
  CHECK(!talk_receive(e, &message)); // said once
  talk_connect(e);                   // but again to an agent that may have missed it
  talk_expect(e, MSG_ACQUIRE);

  struct wire_install out = talk_install(DIRECTION_OUT, 700), in = talk_install(DIRECTION_IN, 700);
  talk_send_install(e, &in);
  talk_send_install(e, &out);
  CHECK(talk_status(e, out.id) == STATUS_OK);
  CHECK(sent.count == 1 && e->hold.packet_count == 0 && e->hold.bytes_total == 0);
  b.fill = 3;
  outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  udp_out_flush(&e->outbound->udp);
  loop_back(e);
  size_t at = 0; // all four came as one UDP super-packet, in order
  CHECK(written.count == 1);
  at = sizeof(struct virtio_net_hdr) + IP4_HEADER + UDP_HEADER;
  for (uint8_t i = 0; i < 4; i++) CHECK(written.packets[0].data[at + i * 10] == i);
}

static void failed_full_and_expired(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct counters *out = &e->workers[WORKER_OUTBOUND].counters, *control = &e->workers[WORKER_CONTROL].counters;
  const struct bed_packet b = {.version = 6, .protocol = PROTOCOL_UDP, .payload = 10};
  for (int i = 0; i < 6; i++) outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  CHECK(out->drops[DROP_HOLD_PAIR_FULL] == 2);
  struct wire_acquire acquire = expect_acquire(e);
  struct wire_fail fail = {.id = 1, .pair = acquire.pair};
  talk_send(e, MSG_FAIL, &fail, sizeof fail);
  CHECK(talk_status(e, 1) == STATUS_OK && control->drops[DROP_HOLD_FAILED] == 4 && e->hold.bytes_total == 0);
  outbound_packet(e->outbound, frame, tun_frame(&b, 0)); // asks again
  expect_acquire(e);
  e->hold.oldest->deadline_ms = 1;
  CHECK(engine_expire(e) == -1 && control->drops[DROP_HOLD_EXPIRED] == 1 && sent.count == 0);
}

static void given_back_as_they_came(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct bed_packet b = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 3000};
  uint8_t *first = malloc(sizeof frame);
  CHECK(first != NULL);
  size_t first_length = tun_frame(&b, 1000); // not cut yet, its checksum not made
  memcpy(first, frame, first_length);
  outbound_packet(e->outbound, frame, first_length);
  b.fill = 7;
  size_t second_length = tun_frame(&b, 0);
  outbound_packet(e->outbound, frame, second_length);
  struct wire_acquire acquire = expect_acquire(e);
  struct wire_release release = {.id = 1, .pair = acquire.pair};
  talk_send(e, MSG_RELEASE, &release, sizeof release);
  CHECK(talk_status(e, 1) == STATUS_OK && e->hold.bytes_total == 0 && sent.count == 0 && written.count == 2);
  CHECK(written.packets[0].length == first_length && memcmp(written.packets[0].data, first, first_length) == 0);
  CHECK(written.packets[1].length == second_length && memcmp(written.packets[1].data, frame, second_length) == 0);
  free(first);
  release.id = 2; // nothing waits: nothing happens
  talk_send(e, MSG_RELEASE, &release, sizeof release);
  CHECK(talk_status(e, 2) == STATUS_OK && written.count == 2);
  outbound_packet(e->outbound, frame, second_length); // the next packet asks again
  expect_acquire(e);
  written.fail_all_with = EIO;
  release.id = 3;
  talk_send(e, MSG_RELEASE, &release, sizeof release);
  CHECK(talk_status(e, 3) == STATUS_OK && e->workers[WORKER_CONTROL].counters.drops[DROP_TUN_WRITE] == 1);
}

static void at_the_hard_limit_packets_are_held_again(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct wire_install m = talk_install(DIRECTION_OUT, 700);
  m.lifetimes.soft_packets = 3;
  m.lifetimes.hard_packets = 5;
  talk_send_install(e, &m);
  CHECK(talk_status(e, m.id) == STATUS_OK);
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 10};
  for (int i = 0; i < 3; i++) outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  engine_events(e);
  struct wire_expiry expiry;
  memcpy(&expiry, talk_expect(e, MSG_EXPIRY).payload, sizeof expiry);
  CHECK(expiry.kind == EXPIRY_SOFT && expiry.cause == CAUSE_PACKETS && expiry.sa.spi == 700);
  for (int i = 0; i < 4; i++) outbound_packet(e->outbound, frame, tun_frame(&b, 0));
  udp_out_flush(&e->outbound->udp);
  CHECK(e->hold.packet_count == 2 && e->workers[WORKER_OUTBOUND].counters.sealed_packets == 5);
  engine_events(e);
  memcpy(&expiry, talk_expect(e, MSG_EXPIRY).payload, sizeof expiry);
  CHECK(expiry.kind == EXPIRY_HARD);
  talk_expect(e, MSG_ACQUIRE);
  m = talk_install(DIRECTION_OUT, 701); // the successor carries what waited
  talk_send_install(e, &m);
  CHECK(talk_status(e, m.id) == STATUS_OK && e->hold.packet_count == 0);
  CHECK(table_outbound(&e->table, &bed_pair4)->packets == 2);
}

// What the kernel joined on the way is of one pair of nodes, not of one SA: some of these have an SA, some none.
static void one_message_of_many_sas(void) {
  enum { SAS = 24, PACKETS = 60 };
  static uint8_t message[PACKETS * 256];
  struct engine *e = bed_engine();
  struct sa *out[SAS];
  for (uint32_t i = 0; i < SAS; i++) {
    out[i] = bed_sa(DIRECTION_OUT, 3000 + i);
    if (i % 4 != 3) table_insert(&e->table, bed_sa(DIRECTION_IN, 3000 + i));
  }
  for (int round = 0; round < 200; round++) {
    const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 100};
    struct counters *c = &e->workers[WORKER_INBOUND].counters;
    uint64_t opened = c->opened_packets, unknown = c->drops[DROP_UNKNOWN_SPI], wanted = 0;
    size_t size = esp_sealed_length(IP4_HEADER + UDP_HEADER + b.payload);
    uint32_t packets = 1 + random_below(PACKETS), run = 0;
    for (uint32_t i = 0, sa = 0; i < packets; i++) {
      if (run == 0) {
        sa = random_below(SAS);
        run = 1 + random_below(random_below(3) == 0 ? 8 : 1);
      }
      run--;
      bed_build(message + i * size + SA_HEADER, &b);
      esp_seal(out[sa], message + i * size, IP4_HEADER + UDP_HEADER + b.payload, NEXT_HEADER_IP4);
      wanted += sa % 4 != 3;
    }
    // An allocation of its own, so that any look beyond the end shows; sometimes the last datagram is cut short.
    size_t length = packets * size, cut = random_below(4) == 0 ? 1 + random_below((uint32_t)size - 1) : 0;
    uint8_t *exact = malloc(length - cut);
    memcpy(exact, message, length - cut);
    const struct udp_received received = {.data = exact, .length = (uint32_t)(length - cut), .segment = (uint32_t)size};
    inbound_message(e->inbound, &received, &sender);
    inbound_flush(e->inbound);
    free(exact);
    sink_clear();
    uint64_t done = c->opened_packets - opened, strangers = c->drops[DROP_UNKNOWN_SPI] - unknown;
    if (cut == 0) CHECK(done == wanted && strangers == packets - wanted);
    else CHECK(done + strangers == packets - 1 || done + strangers == packets); // the last one, or its SPI
  }
  for (uint32_t i = 0; i < SAS; i++) sa_destroy(out[i]);
}

static void events_are_bounded(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  uint8_t junk[100] = {9, 9};
  for (uint32_t i = 0; i < 10000; i++) {
    store_be32(junk, 1000 + i);
    inbound_datagram(e->inbound, junk, sizeof junk, &sender);
    if (i % 100 == 0) engine_events(e);
  }
  engine_events(e);
  unsigned unknown = 0, drops = 0;
  for (struct message message; talk_receive(e, &message);) {
    unknown += message.type == MSG_UNKNOWN_SPI;
    drops += message.type == MSG_DROP;
  }
  CHECK(unknown == 1 && drops == 1); // of one sender, within one tick of the clock
  CHECK(e->workers[WORKER_INBOUND].counters.drops[DROP_UNKNOWN_SPI] == 10000);
  e->workers[WORKER_INBOUND].now_ms += REPORT_INTERVAL_MS;
  inbound_datagram(e->inbound, junk, sizeof junk, &sender);
  engine_events(e);
  struct wire_drop drop;
  memcpy(&drop, talk_expect(e, MSG_DROP).payload, sizeof drop);
  CHECK(drop.reason == DROP_UNKNOWN_SPI && drop.count == 10000 && drop.from.port == 4500);
}

const struct test flow_tests[] = {
    {"flow: a super-packet goes through as many packets and arrives as one", a_super_packet_arrives_as_one},
    {"flow: what is dropped is counted by its reason", dropped_by_reason},
    {"flow: first packets wait, and go in order when the SA is there", first_packets_wait_and_go_in_order},
    {"flow: held packets are dropped when full, failed, or too old", failed_full_and_expired},
    {"flow: held packets go back to the device as they came, when something else carries their pair", given_back_as_they_came},
    {"flow: at the hard limit packets are held for the successor", at_the_hard_limit_packets_are_held_again},
    {"flow: a message of many SAs' packets, each with its own", one_message_of_many_sas},
    {"flow: events about strangers' packets are bounded", events_are_bounded},
    {0},
};
