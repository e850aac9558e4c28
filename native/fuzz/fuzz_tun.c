// SPDX-License-Identifier: Apache-2.0
// Fuzzes what comes from the TUN device. The input is a list of { flags, length (2), virtio header and packet }; flag bit 0
// puts in addresses that an SA has. Whatever is sent has to open again as packets of that SA.
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

static void put_addresses(uint8_t *inner, size_t length) {
  if (length >= IP4_HEADER && inner[0] >> 4 == 4) {
    memcpy(inner + IP4_SOURCE, (const uint8_t *)&bed_pair4.local + 12, 4);
    memcpy(inner + IP4_DESTINATION, (const uint8_t *)&bed_pair4.remote + 12, 4);
  } else if (length >= IP6_HEADER && inner[0] >> 4 == 6) {
    memcpy(inner + IP6_SOURCE, &bed_pair6.local, 16);
    memcpy(inner + IP6_DESTINATION, &bed_pair6.remote, 16);
  }
}

static uint64_t open_all(struct sa *in) {
  uint64_t packets = 0;
  for (unsigned i = 0; i < sent.count; i++) {
    size_t segment = sent.packets[i].segment == 0 ? sent.packets[i].length : sent.packets[i].segment;
    for (size_t at = 0; at < sent.packets[i].length; at += segment, packets++) {
      size_t rest = sent.packets[i].length - at;
      struct esp_opened opened;
      CHECK(esp_open(in, sent.packets[i].data + at, rest < segment ? rest : segment, &opened) == DROP_NONE);
    }
  }
  return packets;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (aead == NULL && !aead_select("auto")) abort();
  struct engine *e = bed_engine();
  struct sa *in = bed_sa(DIRECTION_IN, 0x1000);
  table_insert(&e->table, bed_sa(DIRECTION_OUT, 0x1000));
  unsigned given = 0;
  while (size >= 3) {
    uint8_t flags = data[0];
    size_t length = load_be16(data + 1);
    data += 3;
    size -= 3;
    if (length > size) length = size;
    uint8_t *frame = malloc(length == 0 ? 1 : length);
    memcpy(frame, data, length);
    if ((flags & 1) && length > sizeof(struct virtio_net_hdr))
      put_addresses(frame + sizeof(struct virtio_net_hdr), length - sizeof(struct virtio_net_hdr));
    outbound_packet(e->outbound, frame, length);
    free(frame);
    data += length;
    size -= length;
    given++;
    if (sent.count > SINK_PACKETS - 2048) break; // a segment size of one makes thousands
  }
  udp_out_flush(&e->outbound->udp);
  struct counters *c = &e->workers[WORKER_OUTBOUND].counters;
  CHECK(open_all(in) == c->sealed_packets);
  uint64_t drops = 0;
  for (unsigned i = 0; i < DROP_COUNT; i++) drops += c->drops[i];
  CHECK(drops + e->hold.packet_count <= given);
  sa_destroy(in);
  sink_clear();
  return 0;
}
