// SPDX-License-Identifier: Apache-2.0
// DSCP and ECN between inner and outer headers.
#include "../esp.h"
#include "../inet.h"
#include "../tos.h"
#include "bed.h"
#include "check.h"

static const struct underlay sender = {{{0, 0x010200c0ffff0000}}, 4500};
static uint8_t frame[80000];

// What the TUN device gives for a UDP packet with this octet; the virtio header first.
static size_t marked(uint8_t version, uint8_t tos, uint32_t payload) {
  uint8_t *packet = frame + sizeof(struct virtio_net_hdr);
  const struct bed_packet b = {.version = version, .protocol = PROTOCOL_UDP, .sport = 1, .dport = 2, .payload = payload};
  memset(frame, 0, sizeof(struct virtio_net_hdr));
  size_t length = bed_build(packet, &b);
  if (version == 4) {
    packet[1] = (uint8_t)(tos & ~ECN_MASK); // the checksum of this, then the rest by the function under test
    memset(packet + IP4_CHECKSUM, 0, 2);
    uint32_t sum = 0;
    for (int i = 0; i < IP4_HEADER; i += 2) sum += load_be16(packet + i);
    sum = (sum & 0xffff) + (sum >> 16);
    store_be16(packet + IP4_CHECKSUM, (uint16_t)~(sum + (sum >> 16)));
  } else {
    packet[0] = (uint8_t)(0x60 | tos >> 4);
    packet[1] = (uint8_t)((tos & 0x0c) << 4);
  }
  tos_set_ecn(packet, tos & ECN_MASK);
  CHECK(tos_of(packet) == tos && bed_checksums_right(packet, length));
  return sizeof(struct virtio_net_hdr) + length;
}

static void read_and_written_in_both_versions(void) {
  for (int version = 4; version <= 6; version += 2)
    for (unsigned tos = 0; tos < 256; tos++) marked((uint8_t)version, (uint8_t)tos, 33);
}

// RFC 6040, figure 4: inner down, outer across, in the order of the codepoints: not-ECT, ECT(1), ECT(0), CE. 9: drop.
static const uint8_t figure4[4][4] = {
    [ECN_NOT_ECT] = {[ECN_NOT_ECT] = 0, [ECN_ECT1] = 0, [ECN_ECT0] = 0, [ECN_CE] = 9},
    [ECN_ECT1] = {[ECN_NOT_ECT] = ECN_ECT1, [ECN_ECT1] = ECN_ECT1, [ECN_ECT0] = ECN_ECT1, [ECN_CE] = ECN_CE},
    [ECN_ECT0] = {[ECN_NOT_ECT] = ECN_ECT0, [ECN_ECT1] = ECN_ECT1, [ECN_ECT0] = ECN_ECT0, [ECN_CE] = ECN_CE},
    [ECN_CE] = {[ECN_NOT_ECT] = ECN_CE, [ECN_ECT1] = ECN_CE, [ECN_ECT0] = ECN_CE, [ECN_CE] = ECN_CE},
};

static void through_the_tunnel(void) {
  for (int version = 4; version <= 6; version += 2)
    for (uint8_t inner = 0; inner < 4; inner++)
      for (uint8_t outer = 0; outer < 4; outer++) {
        struct engine *e = bed_engine();
        struct counters *in = &e->workers[WORKER_INBOUND].counters;
        table_insert(&e->table, bed_sa(DIRECTION_OUT, 700));
        table_insert(&e->table, bed_sa(DIRECTION_IN, 700));
        const uint8_t dscp = 46 << 2;
        size_t length = marked((uint8_t)version, dscp | inner, 100);
        outbound_packet(e->outbound, frame, length);
        udp_out_flush(&e->outbound->udp);
        CHECK(sent.count == 1 && sent.packets[0].tos == (dscp | inner));
        // A router on the way may change all of it; the DSCP that the pods see stays theirs.
        e->inbound->outer_tos = (10 << 2) | outer;
        inbound_datagram(e->inbound, sent.packets[0].data, sent.packets[0].length, &sender);
        inbound_flush(e->inbound);
        e->inbound->outer_tos = 0;
        uint8_t expected = figure4[inner][outer];
        CHECK(in->drops[DROP_ECN] == (expected == 9));
        CHECK(written.count == (expected != 9));
        if (expected == 9) continue;
        uint8_t *packet = written.packets[0].data + sizeof(struct virtio_net_hdr);
        CHECK(tos_of(packet) == (dscp | expected));
        CHECK(bed_checksums_right(packet, length - sizeof(struct virtio_net_hdr)));
      }
}

static void messages_have_one_mark(void) {
  struct engine *e = bed_engine();
  table_insert(&e->table, bed_sa(DIRECTION_OUT, 700));
  const uint8_t marks[] = {0, 0, 0, ECN_CE, ECN_CE, 184, 0};
  for (size_t i = 0; i < sizeof marks; i++) outbound_packet(e->outbound, frame, marked(4, marks[i], 100));
  // Refused as messages, they go packet by packet, each with its own.
  sent.fail_with = 22;
  udp_out_flush(&e->outbound->udp);
  CHECK(sent.count == sizeof marks);
  for (size_t i = 0; i < sizeof marks; i++) CHECK(sent.packets[i].tos == marks[i] && sent.packets[i].segment == 0);
}

const struct test tos_tests[] = {
    {"tos: is read and written in both versions", read_and_written_in_both_versions},
    {"tos: DSCP and ECN go in and out of the tunnel as RFC 6040 says", through_the_tunnel},
    {"tos: a message has one mark", messages_have_one_mark},
    {0},
};
