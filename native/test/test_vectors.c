// SPDX-License-Identifier: Apache-2.0
// Whole ESP packets that others sealed: the AES-256 cases with 64-bit sequence numbers of draft-mcgrew-gcm-test-01, "Test
// Cases for the use of GCM and GMAC in IPsec ESP", which are what RFC 4106 has for test vectors.
#include <openssl/evp.h>
#include <string.h>

#include "../aead.h"
#include "../esp.h"
#include "../vault.h"
#include "bed.h"
#include "check.h"

static const struct {
  const char *key, *salt;
  uint64_t sequence; // of which the packet carries the low half
  const char *plain; // inner data, padding, trailer
  const char *packet;
} vectors[] = {
    {"abbccddef00112233445566778899aababbccddef00112233445566778899aab", "73616c74", 0x156f3126dd0db99b,
     "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
     "17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e45"
     "1626c2415771e3b7eebca614c89b35"},
    {"abbccddef00112233445566778899aababbccddef00112233445566778899aab", "73616c74", 0x156f3126dd0db99b,
     "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f67696573017468617477696c6c01646566"
     "696e65746f6d6f72726f7701020201",
     "17405e67dd0db99b616e640169766563d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df074"
     "113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8c0cac587f249e56b11e24f30e44ccc76"},
    {"6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961", "7475726e", 0xffffffffffffffff,
     "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172737401020201",
     "796b6963ffffffff333021696765746df97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b"
     "42458fb57dbe821dcc63b9d0937ba2945f669368661a329fb4c053"},
};

static size_t unhex(uint8_t *to, const char *hex) {
  long length;
  uint8_t *bytes = OPENSSL_hexstr2buf(hex, &length);
  CHECK(bytes != NULL);
  memcpy(to, bytes, (size_t)length);
  OPENSSL_free(bytes);
  return (size_t)length;
}

// The SA of a vector as its receiver has it before the packet comes.
static struct sa *receiver(size_t i, uint32_t spi, uint64_t top) {
  uint8_t key[32], salt[4];
  unhex(key, vectors[i].key);
  unhex(salt, vectors[i].salt);
  struct sa_parameters parameters = {
      .direction = DIRECTION_IN,
      .spi = spi,
      .pair_count = 1,
      .pairs = {bed_pair4},
      .limits = {SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT},
      .replay_window = 64,
      .key = key,
      .salt = salt,
      .note = "",
  };
  struct sa *sa = sa_create(&parameters, vault_alloc(sizeof(struct peer)));
  CHECK(sa != NULL);
  sa->replay.top = top;
  return sa;
}

static void others_packets_open(void) {
  uint8_t packet[256], plain[256];
  struct esp_opened opened;
  for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
    size_t length = unhex(packet, vectors[i].packet), inner = unhex(plain, vectors[i].plain);
    struct sa *sa = receiver(i, load_be32(packet), vectors[i].sequence - 1);
    CHECK(length == SA_HEADER + inner + ESP_ICV);
    // Their trailers say next header 1, which no tunnel has. That is looked at last: the tag was right.
    CHECK(esp_open(sa, packet, length, &opened) == DROP_BAD_NEXT_HEADER);
    CHECK(memcmp(packet + SA_HEADER, plain, inner) == 0 && sa->replay.top == vectors[i].sequence);
    unhex(packet, vectors[i].packet);
    CHECK(esp_open(sa, packet, length, &opened) == DROP_REPLAYED);
    sa_destroy(sa);
  }
}

static void the_high_half_is_authenticated(void) {
  uint8_t packet[256];
  struct esp_opened opened;
  for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
    size_t length = unhex(packet, vectors[i].packet);
    // In the subspace before, the number that stands in the packet is as fresh; only the tag knows.
    struct sa *sa = receiver(i, load_be32(packet), vectors[i].sequence - 1 - ((uint64_t)1 << 32));
    CHECK(esp_open(sa, packet, length, &opened) == DROP_AUTHENTICATION);
    sa_destroy(sa);
  }
}

static void sealed_alike(void) {
  uint8_t key[32], nonce[12], aad[12], wanted[256], data[256], tag[16];
  for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
    size_t inner = unhex(data, vectors[i].plain);
    unhex(wanted, vectors[i].packet);
    unhex(key, vectors[i].key);
    unhex(nonce, vectors[i].salt);
    memcpy(nonce + 4, wanted + 8, 8);
    memcpy(aad, wanted, 4);
    store_be64(aad + 4, vectors[i].sequence);
    void *handle = aead->create(key, true);
    aead->seal(handle, nonce, aad, sizeof aad, data, inner, tag);
    aead->destroy(handle);
    CHECK(memcmp(data, wanted + SA_HEADER, inner) == 0 && memcmp(tag, wanted + SA_HEADER + inner, sizeof tag) == 0);
  }
}

const struct test vector_tests[] = {
    {"vectors: RFC 4106 packets with RFC 4303's 64-bit numbers open, once", others_packets_open},
    {"vectors: the half of the number that is not in the packet is authenticated", the_high_half_is_authenticated},
    {"vectors: the same is sealed", sealed_alike},
    {0},
};
