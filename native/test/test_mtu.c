// SPDX-License-Identifier: Apache-2.0
// Packets that do not fit the underlay.
#include "../mtu.h"

#include <stdlib.h>

#include "../checksum.h"
#include "../esp.h"
#include "../inet.h"
#include "bed.h"
#include "check.h"
#include "talk.h"

static uint8_t frame[80000];
static const struct underlay sender = {{{0, 0x010200c0ffff0000}}, 4500};
#define PACKET (frame + sizeof(struct virtio_net_hdr))

static size_t tun_frame(const struct bed_packet *b, uint16_t mss) {
  struct virtio_net_hdr header = {0};
  size_t length = bed_build(PACKET, b);
  if (mss != 0) header = bed_gso(PACKET, length, mss);
  memcpy(frame, &header, sizeof header);
  return sizeof header + length;
}

// The largest that fits, and not a byte less.
static void inner_sizes(void) {
  for (uint32_t mtu = MTU_LEAST; mtu <= 9216; mtu++)
    for (int ip4 = 0; ip4 < 2; ip4++) {
      uint32_t outer = (ip4 ? IP4_HEADER : IP6_HEADER) + UDP_HEADER, inner = mtu_inner(mtu, ip4);
      CHECK(outer + esp_sealed_length(inner) <= mtu);
      CHECK(outer + esp_sealed_length(inner + 1) > mtu);
    }
  CHECK(mtu_inner(60, true) == 0 && mtu_inner(1u << 20, true) == MTU_NO_LIMIT);
  // What pods' devices get (96 less than the underlay) fits whatever the underlay speaks.
  for (uint32_t mtu = 1280; mtu <= 9216; mtu++) CHECK(mtu_inner(mtu, false) >= mtu - 96);
}

static size_t syn(uint8_t version, uint16_t mss, uint8_t shift, uint8_t flags) {
  uint8_t options = 12;
  const struct bed_packet b = {
      .version = version, .protocol = PROTOCOL_TCP, .sport = 1, .dport = 2, .flags = flags, .options = options};
  size_t length = bed_build(frame, &b), transport = version == 4 ? IP4_HEADER : IP6_HEADER;
  uint8_t *option = frame + transport + TCP_HEADER;
  memset(option, 1, options);
  option += shift; // also where the field lies across the checksum's words
  option[0] = 2;
  option[1] = 4;
  store_be16(option + 2, mss);
  memset(frame + transport + TCP_CHECKSUM, 0, 2);
  uint64_t sum = version == 4 ? checksum_pseudo(frame + IP4_SOURCE, 8, PROTOCOL_TCP, length - transport)
                              : checksum_pseudo(frame + IP6_SOURCE, 32, PROTOCOL_TCP, length - transport);
  uint16_t checksum = (uint16_t)~checksum_fold(checksum_add(frame + transport, length - transport, sum));
  memcpy(frame + transport + TCP_CHECKSUM, &checksum, 2);
  CHECK(bed_checksums_right(frame, length));
  return length;
}

static uint16_t announced(uint8_t version, uint8_t shift) {
  return load_be16(frame + (version == 4 ? IP4_HEADER : IP6_HEADER) + TCP_HEADER + shift + 2);
}

static void syns_are_clamped(void) {
  for (uint8_t version = 4; version <= 6; version += 2)
    for (uint8_t shift = 0; shift < 4; shift++) {
      uint16_t fits = (uint16_t)(1300 - 20 - (version == 4 ? 20 : 40));
      size_t length = syn(version, 1460, shift, 0x02);
      mtu_clamp_mss(frame, length, 1300);
      CHECK(announced(version, shift) == fits && bed_checksums_right(frame, length));
      length = syn(version, 1460, shift, 0x12); // the answer too
      mtu_clamp_mss(frame, length, 1300);
      CHECK(announced(version, shift) == fits && bed_checksums_right(frame, length));
      length = syn(version, 536, shift, 0x02); // less is left alone
      mtu_clamp_mss(frame, length, 1300);
      CHECK(announced(version, shift) == 536);
      length = syn(version, 1460, shift, TCP_ACK); // and what is no SYN
      mtu_clamp_mss(frame, length, 1300);
      CHECK(announced(version, shift) == 1460);
    }
}

// Whatever the bytes are, nothing outside of the packet is read (the sanitizers look), and its length stays.
static void malformed_segments_are_left_alone(void) {
  for (int i = 0; i < 20000; i++) {
    uint8_t version = random_below(2) == 0 ? 4 : 6;
    size_t length = syn(version, 1460, (uint8_t)random_below(4), 0x02);
    size_t header = version == 4 ? IP4_HEADER : IP6_HEADER;
    for (int n = 0; n < 3; n++) frame[header + 12 + random_below((uint32_t)(length - header - 12))] = (uint8_t)random_u64();
    size_t cut = header + random_below((uint32_t)(length - header) + 1);
    uint8_t *exact = malloc(cut);
    memcpy(exact, frame, cut);
    mtu_clamp_mss(exact, cut, 1300);
    free(exact);
  }
}

static void cut_packets_are_whole_again(void) {
  for (int round = 0; round < 200; round++) {
    const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .may_fragment = true, .id = 77,
                                 .payload = 600 + random_below(8000), .fill = (uint8_t)round};
    size_t length = bed_build(frame, &b);
    uint32_t most = 300 + random_below(1200), at = 0;
    uint8_t piece[2000], whole[9000];
    size_t covered = 0, n;
    bool last = false;
    memcpy(whole, frame, IP4_HEADER);
    while ((n = mtu_fragment(piece, frame, length, most, &at)) > 0) {
      CHECK(!last && n <= most && load_be16(piece + IP4_TOTAL_LENGTH) == n && load_be16(piece + IP4_ID) == 77);
      CHECK(checksum_fold(checksum_header(piece, IP4_HEADER, 0)) == 0xffff);
      size_t offset = (size_t)(load_be16(piece + IP4_FRAGMENT) & 0x1fff) * 8;
      CHECK(offset == covered);
      last = (load_be16(piece + IP4_FRAGMENT) & 0x2000) == 0;
      memcpy(whole + IP4_HEADER + offset, piece + IP4_HEADER, n - IP4_HEADER);
      covered += n - IP4_HEADER;
    }
    CHECK(last && covered == length - IP4_HEADER && memcmp(whole + IP4_HEADER, frame + IP4_HEADER, covered) == 0);
  }
}

static void limited(struct engine *e, uint16_t most) {
  struct sa *sa = bed_sa(DIRECTION_OUT, 700);
  atomic_store(&sa->most, most);
  table_insert(&e->table, sa);
}

// The pod gets an error that quotes its own packet, from where the packet was going to.
static void senders_are_told(void) {
  for (uint8_t version = 4; version <= 6; version += 2) {
    struct engine *e = bed_engine();
    limited(e, 1320);
    const struct bed_packet b = {.version = version, .protocol = PROTOCOL_UDP, .sport = 5, .dport = 6, .payload = 1350};
    size_t length = tun_frame(&b, 0);
    outbound_packet(e->outbound, frame, length);
    udp_out_flush(&e->outbound->udp);
    CHECK(sent.count == 0 && written.count == 1);
    struct counters *c = &e->workers[WORKER_OUTBOUND].counters;
    CHECK(c->drops[DROP_TOO_BIG] == 1 && c->mtu_told == 1);
    uint8_t *error = written.packets[0].data + sizeof(struct virtio_net_hdr);
    size_t size = written.packets[0].length - sizeof(struct virtio_net_hdr);
    if (version == 4) {
      CHECK(size <= 576 && load_be16(error + IP4_TOTAL_LENGTH) == size && error[IP4_PROTOCOL] == 1);
      CHECK(error[20] == 3 && error[21] == 4 && load_be16(error + 26) == 1320);
      CHECK(checksum_fold(checksum_header(error, IP4_HEADER, 0)) == 0xffff);
      CHECK(checksum_fold(checksum_add_plain(error + 20, size - 20, 0)) == 0xffff);
      CHECK(memcmp(error + IP4_SOURCE, PACKET + IP4_DESTINATION, 4) == 0);
      CHECK(memcmp(error + IP4_DESTINATION, PACKET + IP4_SOURCE, 4) == 0);
      CHECK(memcmp(error + 28, PACKET, size - 28) == 0);
    } else {
      CHECK(size == MTU_COMPLAINT_MAX && error[IP6_NEXT_HEADER] == 58 && error[40] == 2 && load_be32(error + 44) == 1320);
      uint64_t sum = checksum_pseudo(error + IP6_SOURCE, 32, 58, size - 40);
      CHECK(checksum_fold(checksum_add_plain(error + 40, size - 40, sum)) == 0xffff);
      CHECK(memcmp(error + IP6_SOURCE, PACKET + IP6_DESTINATION, 16) == 0);
      CHECK(memcmp(error + 48, PACKET, size - 48) == 0);
    }
  }
}

static void super_packets_too(void) {
  struct engine *e = bed_engine();
  limited(e, 1320);
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 20 * 1352, .options = 12};
  outbound_packet(e->outbound, frame, tun_frame(&b, 1352));
  udp_out_flush(&e->outbound->udp);
  CHECK(sent.count == 0 && written.count == 1);
  CHECK(e->workers[WORKER_OUTBOUND].counters.drops[DROP_TOO_BIG] == 20);
  sink_clear();
  // Once the sender heeds it, its packets pass.
  outbound_packet(e->outbound, frame, tun_frame(&b, 1320 - 52));
  udp_out_flush(&e->outbound->udp);
  CHECK(sent.count > 0 && written.count == 0);
}

static void nobody_is_told_of_errors_and_later_fragments(void) {
  struct engine *e = bed_engine();
  limited(e, 576);
  const struct bed_packet icmp = {.version = 4, .protocol = 1, .payload = 1000, .fill = 3}; // its first byte: unreachable
  outbound_packet(e->outbound, frame, tun_frame(&icmp, 0));
  CHECK(written.count == 0);
  const struct bed_packet echo = {.version = 4, .protocol = 1, .payload = 1000, .fill = 8};
  outbound_packet(e->outbound, frame, tun_frame(&echo, 0));
  CHECK(written.count == 1);
  // A packet that IPv6 has to carry whole is not complained of: nobody sends smaller ones.
  const struct bed_packet least = {.version = 6, .protocol = PROTOCOL_UDP, .payload = 1280 - 48};
  outbound_packet(e->outbound, frame, tun_frame(&least, 0));
  CHECK(written.count == 1);
  // At most so many in a second.
  for (int i = 0; i < 3000; i++) outbound_packet(e->outbound, frame, tun_frame(&echo, 0));
  CHECK(written.count == 1000);
}

static void what_may_be_cut_is_carried(void) {
  struct engine *e = bed_engine();
  limited(e, 700);
  table_insert(&e->table, bed_sa(DIRECTION_IN, 700));
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .may_fragment = true, .id = 9, .payload = 3000};
  size_t length = tun_frame(&b, 0) - sizeof(struct virtio_net_hdr), covered = 0;
  outbound_packet(e->outbound, frame, sizeof(struct virtio_net_hdr) + length);
  udp_out_flush(&e->outbound->udp);
  CHECK(e->workers[WORKER_OUTBOUND].counters.mtu_cut == 1 && e->workers[WORKER_OUTBOUND].counters.drops[DROP_TOO_BIG] == 0);
  for (unsigned i = 0; i < sent.count; i++) {
    size_t segment = sent.packets[i].segment == 0 ? sent.packets[i].length : sent.packets[i].segment;
    CHECK(segment <= esp_sealed_length(700));
    for (size_t at = 0; at < sent.packets[i].length; at += segment) {
      size_t rest = sent.packets[i].length - at;
      inbound_datagram(e->inbound, sent.packets[i].data + at, rest < segment ? rest : segment, &sender);
    }
  }
  inbound_flush(e->inbound);
  for (unsigned i = 0; i < written.count; i++)
    covered += written.packets[i].length - sizeof(struct virtio_net_hdr) - IP4_HEADER;
  CHECK(covered == length - IP4_HEADER);
}

static enum message_status tell(struct engine *e, const struct wire_path_mtu *m) {
  talk_send(e, MSG_PATH_MTU, m, sizeof *m);
  return talk_status(e, m->id);
}

static void a_path_is_for_its_peers(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct sa *sa = bed_sa(DIRECTION_OUT, 700);
  table_insert(&e->table, sa);
  struct wire_path_mtu m = {.id = 1, .mtu = 1400};
  CHECK(tell(e, &m) == STATUS_OK);
  CHECK(atomic_load(&sa->most) == mtu_inner(1400, true));
  const uint8_t other[16] = {[10] = 0xff, [11] = 0xff, 198, 51, 100, 9}, peer[16] = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 1};
  m.mtu = 1000;
  memcpy(m.address, other, 16);
  CHECK(tell(e, &m) == STATUS_OK);
  CHECK(atomic_load(&sa->most) == mtu_inner(1400, true));
  memcpy(m.address, peer, 16);
  CHECK(tell(e, &m) == STATUS_OK);
  CHECK(atomic_load(&sa->most) == mtu_inner(1000, true));
  m.mtu = 0;
  CHECK(tell(e, &m) == STATUS_OK);
  CHECK(atomic_load(&sa->most) == mtu_inner(1400, true));
  m.mtu = 575;
  CHECK(tell(e, &m) == STATUS_INVALID);
}

// The newest packet of an SA says where its peer is; a replayed or an older one does not.
static void a_peer_that_moved_is_reported(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  table_insert(&e->table, bed_sa(DIRECTION_OUT, 700));
  table_insert(&e->table, bed_sa(DIRECTION_IN, 700));
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 100};
  for (int i = 0; i < 3; i++) {
    outbound_packet(e->outbound, frame, tun_frame(&b, 0));
    udp_out_flush(&e->outbound->udp);
  }
  CHECK(sent.count == 3);
  const struct underlay elsewhere = {sender.address, 61000};
  struct worker *worker = &e->workers[WORKER_INBOUND];
  uint32_t before = atomic_load(&worker->reports.written);
  inbound_datagram(e->inbound, sent.packets[1].data, sent.packets[1].length, &sender);
  CHECK(atomic_load(&worker->reports.written) == before); // where it always was
  inbound_datagram(e->inbound, sent.packets[0].data, sent.packets[0].length, &elsewhere);
  CHECK(atomic_load(&worker->reports.written) == before); // older
  uint8_t forged[1600];
  memcpy(forged, sent.packets[2].data, sent.packets[2].length);
  forged[40] ^= 1;
  inbound_datagram(e->inbound, forged, sent.packets[2].length, &elsewhere);
  CHECK(worker->counters.drops[DROP_AUTHENTICATION] == 1);
  inbound_datagram(e->inbound, sent.packets[2].data, sent.packets[2].length, &elsewhere);
  inbound_flush(e->inbound);
  engine_events(e);
  struct wire_moved moved;
  struct message message = talk_expect(e, MSG_MOVED);
  CHECK(message.length == sizeof moved);
  memcpy(&moved, message.payload, sizeof moved);
  CHECK(moved.sa.spi == 700 && moved.sa.direction == DIRECTION_IN && moved.from.port == 61000);
}

const struct test mtu_tests[] = {
    {"mtu: the largest packet that fits", inner_sizes},
    {"mtu: SYNs announce what fits", syns_are_clamped},
    {"mtu: malformed segments are left alone", malformed_segments_are_left_alone},
    {"mtu: what is cut is whole again", cut_packets_are_whole_again},
    {"mtu: senders of packets that do not fit are told", senders_are_told},
    {"mtu: senders of super-packets too", super_packets_too},
    {"mtu: nobody is told of errors and later fragments, nor too often", nobody_is_told_of_errors_and_later_fragments},
    {"mtu: what may be cut is carried", what_may_be_cut_is_carried},
    {"mtu: a path is for its peers", a_path_is_for_its_peers},
    {"mtu: a peer that moved is reported", a_peer_that_moved_is_reported},
    {0},
};
