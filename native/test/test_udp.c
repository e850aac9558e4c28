// SPDX-License-Identifier: Apache-2.0
// Batching of what is sent: messages of equal-sized packets for one peer.
#include <errno.h>
#include <stdlib.h>

#include "../io_udp.h"
#include "bed.h"
#include "check.h"

static struct peer peers[2];

static struct udp_out *fresh(void) {
  static struct udp_out out;
  struct engine *e = bed_engine();
  const uint8_t a[4] = {192, 0, 2, 1}, b[4] = {192, 0, 2, 2};
  CHECK(udp_peer_address(&peers[0], (struct underlay){addr_from_ip4(a), 4500}, false));
  CHECK(udp_peer_address(&peers[1], (struct underlay){addr_from_ip4(b), 4500}, true));
  if (out.slots == NULL) CHECK(udp_out_init(&out, SINK_UDP, &e->workers[0]));
  out.count = 0;
  out.pending = 0;
  return &out;
}

static void put(struct udp_out *out, int peer, uint32_t length, uint8_t fill) {
  memset(udp_out_reserve(out, &peers[peer], length), fill, length);
}

static void equal_sizes_share_a_message(void) {
  struct udp_out *out = fresh();
  for (int i = 0; i < 10; i++) put(out, 0, 1000, (uint8_t)i);
  put(out, 0, 400, 10); // a shorter one may be the last
  put(out, 0, 400, 11); // and nothing follows it
  put(out, 1, 400, 12); // another peer
  put(out, 0, 500, 13);
  put(out, 0, 600, 14); // longer than the message's first
  CHECK(sent.count == 0);
  udp_out_flush(out);
  const size_t lengths[] = {10400, 400, 400, 500, 600};
  CHECK(sent.count == ARRAY_SIZE(lengths));
  for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) CHECK(sent.packets[i].length == lengths[i]);
  CHECK(sent.packets[0].segment == 1000 && sent.packets[1].segment == 0);
  for (int i = 0; i < 10; i++) CHECK(sent.packets[0].data[i * 1000] == i && sent.packets[0].data[i * 1000 + 999] == i);
  CHECK(sent.packets[0].data[10000] == 10);
}

static void messages_stay_within_the_kernel_s_limits(void) {
  struct udp_out *out = fresh();
  for (int i = 0; i < 500; i++) put(out, 0, 1440, 1);
  for (int i = 0; i < 500; i++) put(out, 0, 40, 1);
  udp_out_flush(out);
  size_t packets = 0;
  for (unsigned i = 0; i < sent.count; i++) {
    size_t segment = sent.packets[i].segment == 0 ? sent.packets[i].length : sent.packets[i].segment;
    size_t count = (sent.packets[i].length + segment - 1) / segment;
    CHECK(sent.packets[i].length <= UDP_MAX_PAYLOAD && count <= UDP_MAX_SEGMENTS);
    packets += count;
  }
  CHECK(packets == 1000);
}

// Whatever is put in comes out once, whole, and in order for each peer.
static void nothing_lost_nothing_reordered(void) {
  for (int round = 0; round < 50; round++) {
    struct udp_out *out = fresh();
    uint32_t sizes[300];
    for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++) {
      sizes[i] = random_below(3) == 0 ? 1440 : 36 + random_below(1400);
      uint8_t *room = udp_out_reserve(out, &peers[0], sizes[i]);
      memset(room, 0, sizes[i]);
      memcpy(room, &i, sizeof i);
      if (random_below(20) == 0) udp_out_flush(out);
    }
    udp_out_flush(out);
    uint32_t next = 0;
    for (unsigned m = 0; m < sent.count; m++) {
      size_t segment = sent.packets[m].segment == 0 ? sent.packets[m].length : sent.packets[m].segment;
      for (size_t at = 0; at < sent.packets[m].length; at += segment, next++) {
        uint32_t number;
        memcpy(&number, sent.packets[m].data + at, sizeof number);
        size_t rest = sent.packets[m].length - at;
        CHECK(number == next && sizes[next] == (rest < segment ? rest : segment));
      }
    }
    CHECK(next == ARRAY_SIZE(sizes));
  }
}

static void a_refused_message_is_sent_packet_by_packet(void) {
  struct udp_out *out = fresh();
  struct counters *counters = &out->worker->counters;
  sent.fail_with = EINVAL;
  for (int i = 0; i < 5; i++) put(out, 0, 1000, (uint8_t)i);
  put(out, 0, 100, 5);
  put(out, 1, 100, 6);
  udp_out_flush(out);
  CHECK(sent.count == 7 && counters->udp_resent_singly == 1);
  for (unsigned i = 0; i < 7; i++) CHECK(sent.packets[i].data[0] == i && sent.packets[i].length == (i < 5 ? 1000 : 100));
  sent.fail_all_with = EMSGSIZE;
  for (int i = 0; i < 5; i++) put(out, 0, 1000, 1);
  udp_out_flush(out);
  CHECK(counters->drops[DROP_TOO_BIG] == 5);
  sent.fail_all_with = ENETUNREACH;
  put(out, 0, 1000, 1);
  udp_out_flush(out);
  CHECK(counters->drops[DROP_UDP_SEND] == 1);
}

static void addresses(void) {
  struct peer peer;
  const uint8_t ip4[4] = {192, 0, 2, 1}, ip6[16] = {0x20, 1, 0xd, 0xb8};
  CHECK(udp_peer_address(&peer, (struct underlay){addr_from_ip4(ip4), 4500}, false));
  CHECK(peer.length == sizeof(struct sockaddr_in) && memcmp(&peer.address.in.sin_addr, ip4, 4) == 0);
  CHECK(peer.address.in.sin_port == __builtin_bswap16(4500));
  CHECK(udp_peer_address(&peer, (struct underlay){addr_from_ip6(ip6), 4500}, true));
  CHECK(peer.length == sizeof(struct sockaddr_in6) && memcmp(&peer.address.in6.sin6_addr, ip6, 16) == 0);
  CHECK(!udp_peer_address(&peer, (struct underlay){addr_from_ip6(ip6), 4500}, false));
  CHECK(!udp_peer_address(&peer, (struct underlay){addr_from_ip4(ip4), 0}, false));
}

const struct test udp_tests[] = {
    {"udp: equal sizes for one peer share a message", equal_sizes_share_a_message},
    {"udp: messages stay within the kernel's limits", messages_stay_within_the_kernel_s_limits},
    {"udp: nothing is lost or reordered", nothing_lost_nothing_reordered},
    {"udp: a refused message is sent packet by packet", a_refused_message_is_sent_packet_by_packet},
    {"udp: peers' addresses fit the socket's family", addresses},
    {0},
};
