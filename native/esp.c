// SPDX-License-Identifier: Apache-2.0
#include "esp.h"

#include "aead.h"
#include "inet.h"



#define ESN_AAD 12

// RFC 4106 section 4: salt, then the IV as it stands in the packet.
static void make_nonce(uint8_t nonce[AEAD_NONCE], const struct sa *sa, const uint8_t *packet) {
  memcpy(nonce, sa->salt, SA_SALT);
  memcpy(nonce + SA_SALT, packet + 8, 8);
}

// RFC 4106 section 5: SPI and all 64 bits of the sequence number, of which only the low half is in the packet.
static void make_aad(uint8_t aad[ESN_AAD], uint32_t spi, uint64_t sequence) {
  store_be32(aad, spi);
  store_be64(aad + 4, sequence);
}

void esp_seal(struct sa *sa, uint8_t *packet, size_t inner, uint8_t next_header) {
  uint64_t sequence = sa->sequence + 1;
  COUNT(sa->sequence, 1);
  store_be32(packet, sa->spi);
  store_be32(packet + 4, (uint32_t)sequence);
  store_be64(packet + 8, sequence); // the IV only has to be unique under the key, and a counter is

  uint8_t *payload = packet + SA_HEADER;
  size_t padding = -(inner + 2) & 3;
  uint8_t *trailer = payload + inner;
  for (size_t i = 0; i < padding; i++) trailer[i] = (uint8_t)(i + 1); // RFC 4303 section 2.4
  trailer[padding] = (uint8_t)padding;
  trailer[padding + 1] = next_header;

  uint8_t nonce[AEAD_NONCE], aad[ESN_AAD];
  make_nonce(nonce, sa, packet);
  make_aad(aad, sa->spi, sequence);
  size_t length = inner + padding + 2;
  aead->seal(sa->aead, nonce, aad, sizeof aad, payload, length, payload + length);
}

// Holds the inner packet against its own header and against the SA. RFC 4301 section 5.2: the selectors of the SA are
// checked after decryption. What follows the inner packet is traffic flow padding (RFC 4303 section 2.7) and is cut off.
static enum drop check_inner(const struct sa *sa, uint8_t *inner, size_t available, uint8_t next_header,
                             struct esp_opened *opened) {
  struct pair pair;
  size_t length;
  unsigned family;
  if (available == 0) return DROP_BAD_INNER;
  if (inner[0] >> 4 != (next_header == NEXT_HEADER_IP4 ? 4 : 6)) return DROP_BAD_NEXT_HEADER;
  if (next_header == NEXT_HEADER_IP4) {
    if (available < IP4_HEADER) return DROP_BAD_INNER;
    size_t header = (size_t)(inner[0] & 15) * 4;
    length = load_be16(inner + 2);
    if (header < IP4_HEADER || length < header || length > available) return DROP_BAD_INNER;
    pair = (struct pair){.local = addr_from_ip4(inner + 16), .remote = addr_from_ip4(inner + 12)};
    family = 0;
  } else {
    if (available < IP6_HEADER) return DROP_BAD_INNER;
    length = (size_t)IP6_HEADER + load_be16(inner + 4);
    if (length > available) return DROP_BAD_INNER;
    pair = (struct pair){.local = addr_from_ip6(inner + 24), .remote = addr_from_ip6(inner + 8)};
    family = 1;
  }
  if (!sa->has[family] || !pair_equal(&sa->pairs[family].pair, &pair)) return DROP_SELECTOR;
  *opened = (struct esp_opened){.inner = inner, .length = length, .version = family == 0 ? 4 : 6};
  return DROP_NONE;
}

// RFC 4303 section 2.4: the receiver inspects the padding.
static bool padding_valid(const uint8_t *padding, size_t length) {
  uint8_t wrong = 0;
  for (size_t i = 0; i < length; i++) wrong |= padding[i] ^ (uint8_t)(i + 1);
  return wrong == 0;
}

enum drop esp_open(struct sa *sa, uint8_t *packet, size_t length, struct esp_opened *opened) {
  if (length < ESP_MIN || length % 4 != 0) return DROP_BAD_LENGTH;
  uint64_t sequence = replay_infer(&sa->replay, load_be32(packet + 4));
  switch (replay_check(&sa->replay, sequence)) {
    case REPLAY_FRESH: break;
    case REPLAY_SEEN: return DROP_REPLAYED;
    case REPLAY_OLD: return DROP_BEHIND_WINDOW;
  }
  uint8_t nonce[AEAD_NONCE], aad[ESN_AAD];
  make_nonce(nonce, sa, packet);
  make_aad(aad, sa->spi, sequence);
  uint8_t *payload = packet + SA_HEADER;
  size_t encrypted = length - SA_HEADER - ESP_ICV;
  if (!aead->open(sa->aead, nonce, aad, sizeof aad, payload, encrypted, payload + encrypted)) {
    // A number below the window was taken for one of the next subspace, as the inference has to: whoever sent it, it could
    // only have been accepted as that.
    return sequence > sa->replay.top && sequence - sa->replay.top > UINT32_MAX / 2 ? DROP_BEHIND_WINDOW
                                                                                   : DROP_AUTHENTICATION;
  }
  replay_update(&sa->replay, sequence);

  uint8_t next_header = payload[encrypted - 1];
  size_t padding = payload[encrypted - 2];
  if (padding + 2 > encrypted) return DROP_BAD_PADDING;
  size_t available = encrypted - 2 - padding;
  if (!padding_valid(payload + available, padding)) return DROP_BAD_PADDING;
  if (next_header == NEXT_HEADER_DUMMY) return DROP_DUMMY;
  if (next_header != NEXT_HEADER_IP4 && next_header != NEXT_HEADER_IP6) return DROP_BAD_NEXT_HEADER;
  return check_inner(sa, payload, available, next_header, opened);
}
