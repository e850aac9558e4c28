// SPDX-License-Identifier: Apache-2.0
// Segmentation: super-packets as the kernel makes them, cut and put together again by hand.
#include <stdlib.h>

#include "../inet.h"
#include "../segment.h"
#include "bed.h"
#include "check.h"

static const struct virtio_net_hdr plain;

static struct bed_packet random_packet(void) {
  bool tcp = random_below(2) == 0;
  return (struct bed_packet){
      .version = random_below(2) == 0 ? 4 : 6,
      .protocol = tcp ? PROTOCOL_TCP : PROTOCOL_UDP,
      .sport = (uint16_t)random_u64(),
      .dport = (uint16_t)random_u64(),
      .sequence = (uint32_t)random_u64(),
      .acknowledgement = (uint32_t)random_u64(),
      .flags = (uint8_t)(TCP_ACK | (random_below(2) ? TCP_PSH : 0) | (random_below(8) == 0 ? TCP_FIN : 0) |
                         (random_below(8) == 0 ? TCP_CWR : 0)),
      .window = (uint16_t)random_u64(),
      .id = (uint16_t)random_u64(),
      .options = tcp ? (uint8_t)(4 * random_below(11)) : 0,
      .payload = 1 + random_below(60000),
      .fill = (uint8_t)random_u64(),
  };
}

static void cut_and_compare(void) {
  static uint8_t super_packet[70000], segment[70000], wanted[70000];
  for (int i = 0; i < 400; i++) {
    struct bed_packet b = random_packet();
    size_t length = bed_build(super_packet, &b);
    uint16_t mss = (uint16_t)(1 + random_below(i % 2 == 0 ? 1500 : 9000));
    if (mss < 20 && b.payload > 5000) mss += 1000;
    struct virtio_net_hdr request = bed_gso(super_packet, length, mss);
    struct super s;
    CHECK(segment_parse(&s, &request, super_packet, length) == DROP_NONE);
    CHECK(s.count == (b.payload + mss - 1) / mss);
    CHECK(pair_equal(&s.pair, b.version == 4 ? &bed_pair4 : &bed_pair6));
    for (uint32_t n = 0; n < s.count; n++) {
      uint32_t got = segment_write(&s, n, segment);
      CHECK(got == segment_length(&s, n));
      CHECK(bed_checksums_right(segment, got));
      // What the sender would have made of this part by itself.
      struct bed_packet part = b;
      part.sequence += n * mss;
      part.id = (uint16_t)(b.id + n);
      part.fill = (uint8_t)(b.fill + n * mss);
      part.payload = n + 1 < s.count ? mss : b.payload - n * mss;
      if (n > 0) part.flags &= (uint8_t)~TCP_CWR;
      if (n + 1 < s.count) part.flags &= (uint8_t) ~(TCP_PSH | TCP_FIN);
      CHECK(bed_build(wanted, &part) == got);
      CHECK(memcmp(segment, wanted, got) == 0);
    }
  }
}

static void whole_packets(void) {
  uint8_t packet[2000], out[2000], finished[2000];
  for (int i = 0; i < 500; i++) {
    struct bed_packet b = random_packet();
    b.payload = random_below(1400);
    struct super s;
    size_t length = bed_build(packet, &b);
    memcpy(finished, packet, length);
    CHECK(segment_parse(&s, &plain, packet, length) == DROP_NONE && s.count == 1);
    CHECK(segment_write(&s, 0, out) == length && memcmp(out, packet, length) == 0);

    struct virtio_net_hdr request = bed_gso(packet, length, 0);
    request.gso_type = VIRTIO_NET_HDR_GSO_NONE;
    CHECK(segment_parse(&s, &request, packet, length) == DROP_NONE && s.count == 1);
    CHECK(segment_write(&s, 0, out) == length && bed_checksums_right(out, length));
    if (b.protocol == PROTOCOL_UDP) CHECK(memcmp(out, finished, length) == 0);
  }
}

static void link_padding_is_cut(void) {
  uint8_t packet[100] = {0};
  struct super s;
  size_t length = bed_build(packet, &(struct bed_packet){.version = 4, .protocol = 1, .payload = 8});
  CHECK(segment_parse(&s, &plain, packet, 46) == DROP_NONE && segment_length(&s, 0) == length);
}

static void refused(void) {
  uint8_t packet[2000];
  struct super s;
  const struct bed_packet tcp4 = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 1000};
  size_t length = bed_build(packet, &tcp4);
  for (size_t shorter = 0; shorter < length; shorter++)
    CHECK(segment_parse(&s, &plain, packet, shorter) == DROP_TUN_MALFORMED);
  packet[0] = 0x44; // a header of 16 bytes
  CHECK(segment_parse(&s, &plain, packet, length) == DROP_TUN_MALFORMED);
  packet[0] = 0x55;
  CHECK(segment_parse(&s, &plain, packet, length) == DROP_TUN_MALFORMED);

  const struct virtio_net_hdr good = (bed_build(packet, &tcp4), bed_gso(packet, length, 500));
  CHECK(segment_parse(&s, &good, packet, length) == DROP_NONE);
  struct virtio_net_hdr r;
#define REFUSED(change) (r = good, change, CHECK(segment_parse(&s, &r, packet, length) == DROP_TUN_OFFLOAD))
  REFUSED(r.gso_size = 0);
  REFUSED(r.gso_type = VIRTIO_NET_HDR_GSO_TCPV6);
  REFUSED(r.gso_type = VIRTIO_NET_HDR_GSO_UDP);
  REFUSED(r.gso_type = 0x7f);
  REFUSED(r.flags = 0);
  REFUSED(r.csum_start = 19);
  REFUSED(r.csum_start = (uint16_t)(length - 17));
  REFUSED(r.csum_offset = 6);
  REFUSED(r.csum_offset = 65535);
  r = good;
  packet[IP4_HEADER + TCP_DATA_OFFSET] = 0x40;
  CHECK(segment_parse(&s, &r, packet, length) == DROP_TUN_OFFLOAD);
  packet[IP4_HEADER + TCP_DATA_OFFSET] = 0xf0;
  CHECK(segment_parse(&s, &r, packet, length) == DROP_NONE && s.header == 80);
}

static void not_unicast(void) {
  static const uint8_t bad4[][4] = {{224, 0, 0, 1}, {255, 255, 255, 255}, {0, 0, 0, 0}, {127, 0, 0, 1}, {169, 254, 1, 1}};
  static const uint8_t bad6[][2] = {{0xff, 0x02}, {0xfe, 0x80}, {0, 0}};
  uint8_t packet[100];
  struct super s;
  for (size_t i = 0; i < ARRAY_SIZE(bad4); i++)
    for (int at = IP4_SOURCE; at <= IP4_DESTINATION; at += 4) {
      size_t length = bed_build(packet, &(struct bed_packet){.version = 4, .protocol = 1, .payload = 8});
      memcpy(packet + at, bad4[i], 4);
      CHECK(segment_parse(&s, &plain, packet, length) == DROP_TUN_NOT_UNICAST);
    }
  for (size_t i = 0; i < ARRAY_SIZE(bad6); i++)
    for (int at = IP6_SOURCE; at <= IP6_DESTINATION; at += 16) {
      size_t length = bed_build(packet, &(struct bed_packet){.version = 6, .protocol = 58, .payload = 8});
      memset(packet + at, 0, 16);
      memcpy(packet + at, bad6[i], 2);
      packet[at + 15] = 1;
      CHECK(segment_parse(&s, &plain, packet, length) == DROP_TUN_NOT_UNICAST);
    }
}

const struct test segment_tests[] = {
    {"segment: every segment is what the sender would have made", cut_and_compare},
    {"segment: whole packets pass, checksums are completed", whole_packets},
    {"segment: Ethernet's padding is cut off", link_padding_is_cut},
    {"segment: malformed packets and offload requests are refused", refused},
    {"segment: only unicast is carried", not_unicast},
    {0},
};
