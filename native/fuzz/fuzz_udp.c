// SPDX-License-Identifier: Apache-2.0
// Fuzzes what comes from the underlay. The input is a list of datagrams, each { kind, length (2), bytes }:
//   kind bit 0: the bytes are the datagram; else they are an inner packet that is sealed with the key that opens it,
//   kind bit 1: with the SA's addresses put in, so that it gets as far as coalescing,
//   kind bits 2-3: the next header, bits 4-7: 15 flips a bit of what was sealed.
// Whatever happens, packets may only be written whole: as many as were opened, each as long as its header says.
#include <stdio.h>
#include <stdlib.h>

#include "../aead.h"
#include "../esp.h"
#include "../inet.h"
#include "../test/bed.h"
#include "../test/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

_Noreturn void check_failed(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: %s\n", file, line, condition);
  abort();
}

static const struct underlay sender = {{{0, 0x010200c0ffff0000}}, 4500};

static void put_addresses(uint8_t *inner, size_t length) {
  // As the sender has them: its local pod is the receiver's remote one.
  if (length >= IP4_HEADER && inner[0] >> 4 == 4) {
    memcpy(inner + IP4_SOURCE, (const uint8_t *)&bed_pair4.local + 12, 4);
    memcpy(inner + IP4_DESTINATION, (const uint8_t *)&bed_pair4.remote + 12, 4);
  } else if (length >= IP6_HEADER && inner[0] >> 4 == 6) {
    memcpy(inner + IP6_SOURCE, &bed_pair6.local, 16);
    memcpy(inner + IP6_DESTINATION, &bed_pair6.remote, 16);
  }
}

static size_t make_datagram(struct sa *out, uint8_t kind, uint8_t *room, const uint8_t *bytes, size_t length) {
  static const uint8_t next_headers[] = {NEXT_HEADER_IP4, NEXT_HEADER_IP6, NEXT_HEADER_DUMMY, 0};
  if (kind & 1) {
    memcpy(room, bytes, length);
    return length;
  }
  memcpy(room + SA_HEADER, bytes, length);
  if (kind & 2) put_addresses(room + SA_HEADER, length);
  esp_seal(out, room, length, next_headers[kind >> 2 & 3]);
  size_t sealed = esp_sealed_length(length);
  if (kind >> 4 == 15) room[length % sealed] ^= 1;
  return sealed;
}

// Every write is a packet that segmentation understands, of the length its header says; returns how many packets it is.
static uint64_t packets_written(void) {
  static uint8_t segment[70000];
  uint64_t packets = 0;
  for (unsigned i = 0; i < written.count; i++) {
    struct virtio_net_hdr header;
    struct super s;
    const uint8_t *packet = written.packets[i].data + sizeof header;
    size_t length = written.packets[i].length - sizeof header;
    memcpy(&header, written.packets[i].data, sizeof header);
    enum drop drop = segment_parse(&s, &header, packet, length);
    CHECK(drop == DROP_NONE && s.length == length);
    for (uint32_t n = 0; n < s.count; n++) CHECK(segment_write(&s, n, segment) == segment_length(&s, n));
    packets += s.count;
  }
  return packets;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t arena[1 << 18]; // datagrams stay where they are until the flush, as in the receive buffers
  if (aead == NULL && !aead_select("auto")) abort();
  struct engine *e = bed_engine();
  struct sa *out = bed_sa(DIRECTION_OUT, 0x10203040);
  table_insert(&e->table, bed_sa(DIRECTION_IN, 0x10203040));
  size_t used = 0;
  while (size >= 3) {
    uint8_t kind = data[0];
    size_t length = load_be16(data + 1);
    data += 3;
    size -= 3;
    if (length > size) length = size;
    if (used + length + ESP_MAX_OVERHEAD > sizeof arena) break;
    size_t datagram = make_datagram(out, kind, arena + used, data, length);
    // An allocation of its own, so that any step beyond the end shows.
    uint8_t *exact = malloc(datagram == 0 ? 1 : datagram);
    memcpy(exact, arena + used, datagram);
    unsigned before = written.count;
    inbound_datagram(e->inbound, exact, datagram, &sender);
    inbound_flush(e->inbound);
    unsigned alone = written.count - before;
    CHECK(alone <= 1);
    free(exact);
    used += datagram;
    data += length;
    size -= length;
  }
  struct counters *c = &e->workers[WORKER_INBOUND].counters;
  CHECK(packets_written() == c->opened_packets);

  // The same once more as one batch, under a new SA, to be coalesced.
  sink_clear();
  uint64_t opened = c->opened_packets;
  struct wire_sa_id id = {.direction = DIRECTION_IN, .spi = 0x10203040};
  struct sa *old = table_find(&e->table, &id);
  table_remove(&e->table, old);
  sa_destroy(old);
  table_insert(&e->table, bed_sa(DIRECTION_IN, 0x10203040));
  for (size_t at = 0; at + 4 <= used;) {
    // Where one ends is not kept: sealed packets start with the SPI.
    size_t end = at + 4;
    while (end < used && !(end + 4 <= used && load_be32(arena + end) == 0x10203040)) end++;
    inbound_datagram(e->inbound, arena + at, end - at, &sender);
    at = end;
  }
  inbound_flush(e->inbound);
  CHECK(packets_written() == c->opened_packets - opened);

  // And as one message of the socket, cut where its first byte says, whatever stands there by now.
  if (used > 0) {
    uint8_t *exact = malloc(used);
    memcpy(exact, arena, used);
    const struct udp_received received = {.data = exact, .length = (uint32_t)used, .segment = 1 + 7u * exact[0]};
    inbound_message(e->inbound, &received, &sender);
    inbound_flush(e->inbound);
    free(exact);
  }
  sa_destroy(out);
  sink_clear();
  return 0;
}
