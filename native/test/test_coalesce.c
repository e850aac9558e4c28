// SPDX-License-Identifier: Apache-2.0
// Coalescing: random traffic joined, cut again by segmentation, and compared packet by packet and in order.
#include <stdlib.h>

#include "../checksum.h"
#include "../coalesce.h"
#include "../inet.h"
#include "bed.h"
#include "check.h"

#define PACKETS 200

static struct coalescer coalescer;
static uint8_t buffer[PACKETS][2048], original[PACKETS][2048];
static size_t lengths[PACKETS];

// Joins a finished bundle's pieces and cuts the result as the kernel would; calls `each` for every packet.
static unsigned take_apart(struct bundle *b, void (*each)(const uint8_t *packet, size_t length)) {
  static uint8_t whole[70000], packet[70000];
  size_t length = 0;
  coalesce_finish(b);
  for (unsigned i = 1; i <= b->count; i++) {
    memcpy(whole + length, b->pieces[i].iov_base, b->pieces[i].iov_len);
    length += b->pieces[i].iov_len;
  }
  struct super s;
  CHECK(segment_parse(&s, &b->virtio, whole, length) == DROP_NONE);
  CHECK(s.count == b->count && s.length == length);
  for (uint32_t i = 0; i < s.count; i++) each(packet, segment_write(&s, i, packet));
  return s.count;
}

// Each packet that comes out has to be one that went in, and the packets of a flow in their order.
static bool out[PACKETS];

static bool is_same(const uint8_t *packet, size_t length, unsigned i) {
  return !out[i] && lengths[i] == length && memcmp(packet, original[i], length) == 0;
}

static void same_flow_in_order(unsigned i) {
  for (unsigned earlier = 0; earlier < i; earlier++) {
    size_t at = original[i][0] >> 4 == 4 ? IP4_HEADER : IP6_HEADER;
    bool same = original[i][0] == original[earlier][0] && memcmp(original[i] + at, original[earlier] + at, 4) == 0;
    CHECK(!same || out[earlier]);
  }
}

static void expect(const uint8_t *packet, size_t length) {
  for (unsigned i = 0; i < PACKETS; i++) {
    if (!is_same(packet, length, i)) continue;
    same_flow_in_order(i);
    out[i] = true;
    return;
  }
  CHECK(!"a packet came out that did not go in");
}

static unsigned drain(unsigned *joined) {
  unsigned packets = 0;
  for (unsigned i = 0; i < coalescer.count; i++) {
    unsigned count = take_apart(&coalescer.bundles[i], expect);
    packets += count;
    *joined += count - 1;
  }
  coalescer.count = 0;
  return packets;
}

// Several flows, interleaved, mostly in order and of one size, with every kind of disturbance now and then.
static unsigned random_traffic(bool udp) {
  struct bed_packet flow[6];
  unsigned joined = 0, packets = 0;
  coalescer.udp = udp;
  coalescer.count = 0;
  memset(out, 0, sizeof out);
  for (unsigned f = 0; f < ARRAY_SIZE(flow); f++)
    flow[f] = (struct bed_packet){.version = f % 2 == 0 ? 4 : 6,
                                  .protocol = f < 4 ? PROTOCOL_TCP : PROTOCOL_UDP,
                                  .sport = (uint16_t)(1000 + f),
                                  .dport = 80,
                                  .sequence = 0xffffff00u + f,
                                  .flags = TCP_ACK,
                                  .window = 500,
                                  .may_fragment = f == 2,
                                  .options = 12,
                                  .payload = 1200};
  for (unsigned i = 0; i < PACKETS; i++) {
    struct bed_packet *f = &flow[random_below(ARRAY_SIZE(flow))], b = *f;
    switch (random_below(30)) {
      case 0: b.payload = random_below(1300); break;
      case 1: b.flags |= TCP_PSH; break;
      case 2: b.flags |= TCP_FIN; break;
      case 3: b.sequence += 7; break;
      case 4: b.window++; break;
      case 5: f->acknowledgement++; break;
      case 6: b.options = 0; break;
      case 7: b.payload = 0; break;
    }
    lengths[i] = bed_build(buffer[i], &b);
    uint8_t *transport = buffer[i] + (b.version == 4 ? IP4_HEADER : IP6_HEADER);
    if (random_below(40) == 0) transport[b.protocol == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM] ^= 1;
    memcpy(original[i], buffer[i], lengths[i]);
    f->sequence = b.sequence + b.payload;
    f->fill = (uint8_t)(f->fill + b.payload);
    f->id++;
    if (!coalesce_add(&coalescer, buffer[i], lengths[i])) {
      CHECK(coalescer.count == COALESCE_BUNDLES);
      packets += drain(&joined);
      CHECK(coalesce_add(&coalescer, buffer[i], lengths[i]));
    }
  }
  packets += drain(&joined);
  CHECK(packets == PACKETS);
  for (unsigned i = 0; i < PACKETS; i++) CHECK(out[i]);
  return joined;
}

static void round_trips(void) {
  unsigned joined = 0;
  for (int i = 0; i < 100; i++) joined += random_traffic(i % 2 == 0);
  CHECK(joined > 1000); // or the test shows nothing
}

static unsigned add_run(unsigned count, struct bed_packet b) {
  coalescer.count = 0;
  for (unsigned i = 0; i < count; i++) {
    size_t length = bed_build(buffer[i], &b);
    CHECK(coalesce_add(&coalescer, buffer[i], length));
    b.sequence += b.payload;
    b.id++;
  }
  return coalescer.count;
}

static void limits(void) {
  const struct bed_packet b = {
      .version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 1352, .options = 12};
  CHECK(add_run(48, b) == 1 && coalescer.bundles[0].count == 48 && coalescer.bundles[0].length == 48 * 1352 + 52);
  CHECK(add_run(49, b) == 2 && coalescer.bundles[0].count == 48); // the 49th would make it longer than an IP packet can be
  struct bed_packet small = b;
  small.payload = 10;
  CHECK(add_run(COALESCE_SEGMENTS + 1, small) == 2 && coalescer.bundles[0].count == COALESCE_SEGMENTS);
  coalescer.udp = false;
  struct bed_packet udp = b;
  udp.protocol = PROTOCOL_UDP;
  CHECK(add_run(5, udp) == 5);
  coalescer.udp = true;
  CHECK(add_run(5, udp) == 1);
}

static void without_dont_fragment_ids_have_to_follow(void) {
  struct bed_packet b = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 100, .may_fragment = true};
  CHECK(add_run(5, b) == 1);
  coalescer.count = 0;
  for (unsigned i = 0; i < 3; i++, b.sequence += 100, b.id = (uint16_t)(b.id + 2))
    CHECK(coalesce_add(&coalescer, buffer[i], bed_build(buffer[i], &b)));
  CHECK(coalescer.count == 3);
}

static void never_joined(void) {
  struct bed_packet b = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = 100};
  size_t length = bed_build(buffer[0], &b);
  coalescer.count = 0;
  store_be16(buffer[0] + IP4_FRAGMENT, 0x2000); // a fragment
  CHECK(coalesce_add(&coalescer, buffer[0], length) && !coalescer.bundles[0].open);
  length = bed_build(buffer[1], &b);
  buffer[1][0] = 0x46; // options
  CHECK(coalesce_add(&coalescer, buffer[1], length) && !coalescer.bundles[1].open);
  b.flags = 0x02; // SYN
  CHECK(coalesce_add(&coalescer, buffer[2], bed_build(buffer[2], &b)) && !coalescer.bundles[2].open);
  b.protocol = 132;
  CHECK(coalesce_add(&coalescer, buffer[3], bed_build(buffer[3], &b)) && !coalescer.bundles[3].open);
  CHECK(coalescer.count == 4);
}

const struct test coalesce_tests[] = {
    {"coalesce: what was joined comes apart as it was, in order", round_trips},
    {"coalesce: bundles stay within an IP packet and the piece list", limits},
    {"coalesce: without don't-fragment identifications have to follow", without_dont_fragment_ids_have_to_follow},
    {"coalesce: fragments, options, SYNs and other protocols travel alone", never_joined},
    {0},
};
