// SPDX-License-Identifier: Apache-2.0
#include "bed.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../checksum.h"
#include "../inet.h"
#include "../vault.h"
#include "check.h"

// 10.1.1.1 → 10.2.2.2, fd00::1 → fd00::2
static const uint8_t ip4[8] = {10, 1, 1, 1, 10, 2, 2, 2};
static const uint8_t ip6[32] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
                                0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2};
const struct pair bed_pair4 = {.local = {{0, 0x0101010affff0000}}, .remote = {{0, 0x0202020affff0000}}};
const struct pair bed_pair6 = {.local = {{0xfd, 0x0100000000000000}}, .remote = {{0xfd, 0x0200000000000000}}};

static void empty(struct engine *e) {
  for (struct sa *sa = e->table.oldest; sa != NULL;) {
    struct sa *next = sa->newer;
    table_remove(&e->table, sa);
    sa_take_notices(&e->notices);
    sa_destroy(sa);
    sa = next;
  }
  engine_reclaim(e);
  struct held_pair *held;
  while ((held = hold_take_expired(&e->hold, UINT64_MAX)) != NULL) hold_free(held);
  for (unsigned i = 0; i < WORKER_COUNT; i++) {
    memset(&e->workers[i].counters, 0, sizeof e->workers[i].counters);
    memset(&e->workers[i].reports, 0, sizeof e->workers[i].reports);
    e->workers[i].now_ms = 1000;
  }
  memset(e->drops_reported, 0, sizeof e->drops_reported);
  connection_reset(&e->connection, 0);
  for (unsigned lane = 0; lane < e->lanes; lane++) {
    e->inbound[lane].coalescer.count = 0;
    e->outbound[lane].udp.count = 0;
    e->outbound[lane].udp.pending = 0;
    e->outbound[lane].complaints = 0;
    struct handoff_note note;
    size_t length;
    for (unsigned from = 0; from < e->lanes && e->lanes > 1; from++) {
      if (from == lane) continue;
      while (handoff_next(&e->sealing, from, lane, &length, &note) != NULL) handoff_done(&e->sealing, from, lane);
      while (handoff_next(&e->opening, from, lane, &length, &note) != NULL) handoff_done(&e->opening, from, lane);
    }
  }
  e->release.udp.count = 0;
  e->release.udp.pending = 0;
  e->release.complaints = 0;
  e->paths.fallback = e->paths.count = 0;
  e->ending = false;
}

struct engine *bed_engine(void) { return bed_engine_of(1); }

struct engine *bed_engine_of(unsigned lanes) {
  static struct engine *engines[LANES_MAX + 1];
  struct engine *engine = engines[lanes];
  if (engine == NULL) {
    const struct engine_options options = {
        .lanes = lanes,
        .hold = {.packets_per_pair = 4, .bytes_per_pair = 100000, .bytes_total = 300000, .timeout_ms = 5000}};
    struct engine_ends ends[LANES_MAX];
    for (unsigned lane = 0; lane < lanes; lane++)
      ends[lane] = (struct engine_ends){{.fd = SINK_TUN, .udp_offload = true, .read_nowait = true}, SINK_UDP};
    engine = engines[lanes] = aligned_alloc(CACHE_LINE, (sizeof *engine + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
    CHECK(engine_init(engine, &options, ends, true, eventfd(0, EFD_NONBLOCK)));
  }
  empty(engine);
  sink_clear();
  return engine;
}

static struct pair reversed(struct pair pair) { return (struct pair){.local = pair.remote, .remote = pair.local}; }

struct sa *bed_sa_limited(uint8_t direction, uint32_t spi, const struct wire_lifetimes *limits) {
  uint8_t key[36];
  for (size_t i = 0; i < sizeof key; i++) key[i] = (uint8_t)(spi + i);
  bool in = direction == DIRECTION_IN;
  struct sa_parameters parameters = {
      .direction = direction,
      .spi = spi,
      .pair_count = 2,
      .pairs = {in ? reversed(bed_pair4) : bed_pair4, in ? reversed(bed_pair6) : bed_pair6},
      .limits = *limits,
      .replay_window = 4096,
      .key = key,
      .salt = key + 32,
      .note = "note",
      .note_length = 4,
  };
  struct peer *peer = vault_alloc(sizeof *peer);
  const uint8_t address[4] = {192, 0, 2, 1};
  CHECK(peer != NULL && udp_peer_address(peer, (struct underlay){addr_from_ip4(address), 4500}, false));
  struct sa *sa = sa_create(&parameters, peer);
  CHECK(sa != NULL);
  return sa;
}

struct sa *bed_sa(uint8_t direction, uint32_t spi) {
  const struct wire_lifetimes none = {SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT};
  return bed_sa_limited(direction, spi, &none);
}

// Puts in the IP header, and the transport checksum where there is one.
static void finish(uint8_t *p, const struct bed_packet *b, size_t header, size_t length) {
  uint64_t sum;
  if (b->version == 4) {
    p[0] = 0x45;
    store_be16(p + IP4_TOTAL_LENGTH, (uint16_t)length);
    store_be16(p + IP4_ID, b->id);
    store_be16(p + IP4_FRAGMENT, b->may_fragment ? 0 : IP4_DONT_FRAGMENT);
    p[8] = 64;
    p[IP4_PROTOCOL] = b->protocol;
    memcpy(p + IP4_SOURCE, ip4, sizeof ip4);
    uint16_t checksum = (uint16_t)~checksum_fold(checksum_header(p, IP4_HEADER, 0));
    memcpy(p + IP4_CHECKSUM, &checksum, 2);
    sum = checksum_pseudo(ip4, sizeof ip4, b->protocol, length - header);
  } else {
    p[0] = 0x60;
    store_be16(p + IP6_PAYLOAD_LENGTH, (uint16_t)(length - header));
    p[IP6_NEXT_HEADER] = b->protocol;
    p[7] = 64;
    memcpy(p + IP6_SOURCE, ip6, sizeof ip6);
    sum = checksum_pseudo(ip6, sizeof ip6, b->protocol, length - header);
  }
  size_t field = b->protocol == PROTOCOL_TCP ? TCP_CHECKSUM : b->protocol == PROTOCOL_UDP ? UDP_CHECKSUM : 0;
  if (field == 0) return;
  uint16_t checksum = (uint16_t)~checksum_fold(checksum_add_plain(p + header, length - header, sum));
  if (checksum == 0 && b->protocol == PROTOCOL_UDP) checksum = 0xffff;
  memcpy(p + header + field, &checksum, 2);
}

size_t bed_build(uint8_t *p, const struct bed_packet *b) {
  size_t header = b->version == 4 ? IP4_HEADER : IP6_HEADER, transport = 0;
  if (b->protocol == PROTOCOL_TCP) transport = TCP_HEADER + b->options;
  if (b->protocol == PROTOCOL_UDP) transport = UDP_HEADER;
  memset(p, 0, header + transport);
  uint8_t *t = p + header;
  if (transport != 0) {
    store_be16(t, b->sport);
    store_be16(t + 2, b->dport);
  }
  if (b->protocol == PROTOCOL_TCP) {
    store_be32(t + TCP_SEQUENCE, b->sequence);
    store_be32(t + TCP_ACKNOWLEDGEMENT, b->acknowledgement);
    t[TCP_DATA_OFFSET] = (uint8_t)((transport / 4) << 4);
    t[TCP_FLAGS] = b->flags;
    store_be16(t + TCP_WINDOW, b->window);
    memset(t + TCP_HEADER, 1, b->options); // NOPs
  } else if (b->protocol == PROTOCOL_UDP) {
    store_be16(t + UDP_LENGTH, (uint16_t)(transport + b->payload));
  }
  for (uint32_t i = 0; i < b->payload; i++) t[transport + i] = (uint8_t)(b->fill + i);
  size_t length = header + transport + b->payload;
  finish(p, b, header, length);
  return length;
}

bool bed_checksums_right(const uint8_t *p, size_t length) {
  bool v4 = p[0] >> 4 == 4;
  size_t header = v4 ? (size_t)(p[0] & 15) * 4 : IP6_HEADER;
  uint8_t protocol = v4 ? p[IP4_PROTOCOL] : p[IP6_NEXT_HEADER];
  if (v4 && checksum_fold(checksum_add_plain(p, header, 0)) != 0xffff) return false;
  if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP) return true;
  uint64_t sum = v4 ? checksum_pseudo(p + IP4_SOURCE, 8, protocol, length - header)
                    : checksum_pseudo(p + IP6_SOURCE, 32, protocol, length - header);
  return checksum_fold(checksum_add_plain(p + header, length - header, sum)) == 0xffff;
}

struct virtio_net_hdr bed_gso(uint8_t *p, size_t length, uint16_t mss) {
  bool v4 = p[0] >> 4 == 4;
  size_t header = v4 ? IP4_HEADER : IP6_HEADER;
  uint8_t protocol = v4 ? p[IP4_PROTOCOL] : p[IP6_NEXT_HEADER];
  uint16_t field = protocol == PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
  uint64_t sum = v4 ? checksum_pseudo(p + IP4_SOURCE, 8, protocol, length - header)
                    : checksum_pseudo(p + IP6_SOURCE, 32, protocol, length - header);
  uint16_t partial = checksum_fold(sum);
  memcpy(p + header + field, &partial, 2);
  uint8_t tcp = v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
  return (struct virtio_net_hdr){
      .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
      .gso_type = protocol == PROTOCOL_TCP ? tcp : VIRTIO_NET_HDR_GSO_UDP_L4,
      .hdr_len = (uint16_t)header,
      .gso_size = mss,
      .csum_start = (uint16_t)header,
      .csum_offset = field,
  };
}
