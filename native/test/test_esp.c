// SPDX-License-Identifier: Apache-2.0
// ESP packets: format, round trip, and each way in which one is refused.
#include "../esp.h"

#include "../aead.h"
#include "../inet.h"
#include "bed.h"
#include "check.h"

static uint8_t packet[4096];

// Swaps the pair in a packet that bed_build made, for nothing: the receiver's SA is of the reversed pair already.
static size_t seal_packet(struct sa *out, const struct bed_packet *b) {
  size_t inner = bed_build(packet + SA_HEADER, b);
  esp_seal(out, packet, inner, b->version == 4 ? NEXT_HEADER_IP4 : NEXT_HEADER_IP6);
  return esp_sealed_length(inner);
}

static void round_trips(void) {
  struct sa *out = bed_sa(DIRECTION_OUT, 5000), *in = bed_sa(DIRECTION_IN, 5000);
  uint8_t wanted[4096];
  for (uint32_t i = 0; i < 3000; i++) {
    struct bed_packet b = {.version = i % 2 ? 4 : 6, .protocol = PROTOCOL_UDP, .payload = random_below(1500)};
    size_t inner = bed_build(wanted, &b), length = seal_packet(out, &b);
    CHECK(length % 4 == 0 && length == esp_sealed_length(inner) && length <= inner + ESP_MAX_OVERHEAD);
    CHECK(load_be32(packet) == 5000 && load_be32(packet + 4) == i + 1);
    CHECK(load_be32(packet + 8) == 0 && load_be32(packet + 12) == i + 1);
    CHECK(memcmp(packet + SA_HEADER, wanted, 20) != 0);
    struct esp_opened opened;
    CHECK(esp_open(in, packet, length, &opened) == DROP_NONE);
    CHECK(opened.length == inner && opened.version == b.version && memcmp(opened.inner, wanted, inner) == 0);
  }
  sa_destroy(out);
  sa_destroy(in);
}

static void refusals_leave_the_window(void) {
  struct sa *out = bed_sa(DIRECTION_OUT, 5001), *in = bed_sa(DIRECTION_IN, 5001);
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 50};
  struct esp_opened opened;
  uint8_t copy[256];
  size_t length = seal_packet(out, &b);
  for (size_t bit = 32; bit < length * 8; bit++) { // every bit but those of the SPI, which chooses the SA
    memcpy(copy, packet, length);
    copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    enum drop reason = esp_open(in, copy, length, &opened);
    CHECK(reason == DROP_AUTHENTICATION || (bit / 8 < 8 && (reason == DROP_REPLAYED || reason == DROP_BEHIND_WINDOW)));
  }
  for (size_t shorter = 0; shorter < length; shorter++) {
    memcpy(copy, packet, length);
    enum drop reason = esp_open(in, copy, shorter, &opened);
    CHECK(reason == (shorter < ESP_MIN || shorter % 4 != 0 ? DROP_BAD_LENGTH : DROP_AUTHENTICATION));
  }
  memcpy(copy, packet, length);
  CHECK(esp_open(in, copy, length, &opened) == DROP_NONE); // none of that used the number up
  memcpy(copy, packet, length);
  CHECK(esp_open(in, copy, length, &opened) == DROP_REPLAYED);
  for (int i = 0; i < 4096; i++) {
    size_t n = seal_packet(out, &b);
    CHECK(esp_open(in, packet, n, &opened) == DROP_NONE);
  }
  CHECK(esp_open(in, copy, length, &opened) == DROP_BEHIND_WINDOW);
  sa_destroy(out);
  sa_destroy(in);
}

// Seals a hand-made plaintext, padding, trailer and all; `length` counts everything before the ICV.
static enum drop open_raw(uint32_t spi, const uint8_t *plain, size_t length) {
  struct sa *out = bed_sa(DIRECTION_OUT, spi), *in = bed_sa(DIRECTION_IN, spi);
  struct esp_opened opened;
  uint8_t nonce[12] = {0}, aad[12] = {0};
  memset(packet, 0, SA_HEADER);
  store_be32(packet, spi);
  store_be32(packet + 4, 1);
  memcpy(packet + SA_HEADER, plain, length);
  memcpy(nonce, out->salt, 4);
  store_be32(aad, spi);
  store_be32(aad + 8, 1);
  aead->seal(out->aead, nonce, aad, sizeof aad, packet + SA_HEADER, length, packet + SA_HEADER + length);
  enum drop reason = esp_open(in, packet, SA_HEADER + length + ESP_ICV, &opened);
  sa_destroy(out);
  sa_destroy(in);
  return reason;
}

static enum drop open_inner(uint8_t *plain, size_t inner, uint8_t padding, uint8_t next_header) {
  for (uint8_t i = 0; i < padding; i++) plain[inner + i] = (uint8_t)(i + 1);
  plain[inner + padding] = padding;
  plain[inner + padding + 1] = next_header;
  return open_raw(6000, plain, inner + padding + 2);
}

static void trailers_and_inner_packets(void) {
  uint8_t plain[512];
  const struct bed_packet b4 = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 22}; // 50 bytes
  const struct bed_packet b6 = {.version = 6, .protocol = PROTOCOL_UDP, .payload = 2};  // 50 bytes
#define FRESH(b) (memset(plain, 0, sizeof plain), bed_build(plain, &(b)))
  FRESH(b4);
  CHECK(open_inner(plain, 50, 0, 4) == DROP_NONE);
  FRESH(b4);
  CHECK(open_inner(plain, 50, 200, 4) == DROP_NONE); // more padding than needed is allowed
  FRESH(b4);
  CHECK(open_inner(plain, 90, 0, 4) == DROP_NONE); // traffic flow padding behind the inner packet
  FRESH(b6);
  CHECK(open_inner(plain, 50, 0, 41) == DROP_NONE);

  FRESH(b4);
  CHECK(open_inner(plain, 50, 0, 41) == DROP_BAD_NEXT_HEADER);
  FRESH(b6);
  CHECK(open_inner(plain, 50, 0, 4) == DROP_BAD_NEXT_HEADER);
  FRESH(b4);
  CHECK(open_inner(plain, 50, 0, 6) == DROP_BAD_NEXT_HEADER);
  FRESH(b4);
  CHECK(open_inner(plain, 50, 0, 59) == DROP_DUMMY);

  FRESH(b4);
  plain[50 + 1] = 9; // wrong padding byte
  plain[50] = 1;
  plain[50 + 4] = 4;
  plain[50 + 5] = 4;
  CHECK(open_raw(6001, plain, 56) == DROP_BAD_PADDING);
  memset(plain, 0, sizeof plain);
  plain[6] = 200; // more padding than packet
  plain[7] = 4;
  CHECK(open_raw(6002, plain, 8) == DROP_BAD_PADDING);

  FRESH(b4);
  store_be16(plain + 2, 51); // says more than there is
  CHECK(open_inner(plain, 50, 0, 4) == DROP_BAD_INNER);
  FRESH(b4);
  store_be16(plain + 2, 19);
  CHECK(open_inner(plain, 50, 0, 4) == DROP_BAD_INNER);
  FRESH(b4);
  plain[0] = 0x44;
  CHECK(open_inner(plain, 50, 0, 4) == DROP_BAD_INNER);
  FRESH(b6);
  store_be16(plain + 4, 11);
  CHECK(open_inner(plain, 50, 0, 41) == DROP_BAD_INNER);
  memset(plain, 0x45, sizeof plain);
  CHECK(open_inner(plain, 18, 0, 4) == DROP_BAD_INNER);
  memset(plain, 0x60, sizeof plain);
  CHECK(open_inner(plain, 38, 0, 41) == DROP_BAD_INNER);
  CHECK(open_inner(plain, 2, 0, 41) == DROP_BAD_INNER);
}

static void only_the_sa_s_own_pair(void) {
  uint8_t plain[128];
  const struct bed_packet b4 = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 22};
  const struct bed_packet b6 = {.version = 6, .protocol = PROTOCOL_UDP, .payload = 2};
  for (size_t at = IP4_SOURCE; at < IP4_SOURCE + 8; at++) {
    FRESH(b4);
    plain[at] ^= 1;
    CHECK(open_inner(plain, 50, 0, 4) == DROP_SELECTOR);
  }
  for (size_t at = IP6_SOURCE; at < IP6_SOURCE + 32; at++) {
    FRESH(b6);
    plain[at] ^= 1;
    CHECK(open_inner(plain, 50, 0, 41) == DROP_SELECTOR);
  }
}

static void sequence_numbers_beyond_32_bits(void) {
  struct sa *out = bed_sa(DIRECTION_OUT, 5003), *in = bed_sa(DIRECTION_IN, 5003);
  const struct bed_packet b = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 50};
  struct esp_opened opened;
  out->sequence = in->replay.top = 0xfffffff0;
  for (int i = 0; i < 100; i++) {
    size_t length = seal_packet(out, &b);
    CHECK(esp_open(in, packet, length, &opened) == DROP_NONE);
  }
  CHECK(in->replay.top == 0x100000054 && out->sequence == in->replay.top);
  sa_destroy(out);
  sa_destroy(in);
}

const struct test esp_tests[] = {
    {"esp: sealed packets have RFC 4303's form and open again", round_trips},
    {"esp: every flipped bit and every truncation is refused, and costs nothing", refusals_leave_the_window},
    {"esp: trailers and inner packets that contradict themselves", trailers_and_inner_packets},
    {"esp: no other address than the SA's", only_the_sa_s_own_pair},
    {"esp: sequence numbers go on beyond 32 bits", sequence_numbers_beyond_32_bits},
    {0},
};
