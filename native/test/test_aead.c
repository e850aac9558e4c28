// SPDX-License-Identifier: Apache-2.0
// AES-256-GCM test cases 13 to 16 of McGrew and Viega's "The Galois/Counter Mode of Operation", which NIST took over, for
// every implementation; and the implementations against each other.
#include <openssl/evp.h>
#include <string.h>

#include "../aead.h"
#include "check.h"

static size_t unhex(uint8_t *to, const char *hex) {
  long length;
  uint8_t *bytes = *hex == 0 ? NULL : OPENSSL_hexstr2buf(hex, &length);
  if (bytes == NULL) return 0;
  memcpy(to, bytes, (size_t)length);
  OPENSSL_free(bytes);
  return (size_t)length;
}

static const struct {
  const char *key, *nonce, *aad, *plain, *cipher, *tag;
} vectors[] = {
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "", "",
     "530f8afbc74536b9a963b4f1c4cb738b"},
    {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "",
     "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba63"
     "7b391aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9"
     "f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba63"
     "7b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9"
     "f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void check_vectors(const struct aead_backend *backend) {
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
    uint8_t key[32], nonce[12], aad[32], data[64], plain[64], cipher[64], tag[16], wanted[16];
    unhex(key, vectors[i].key);
    unhex(nonce, vectors[i].nonce);
    size_t aad_length = unhex(aad, vectors[i].aad), length = unhex(plain, vectors[i].plain);
    unhex(cipher, vectors[i].cipher);
    unhex(wanted, vectors[i].tag);
    void *seal = backend->create(key, true), *open = backend->create(key, false);
    memcpy(data, plain, length);
    backend->seal(seal, nonce, aad, aad_length, data, length, tag);
    CHECK(memcmp(data, cipher, length) == 0 && memcmp(tag, wanted, 16) == 0);
    CHECK(backend->open(open, nonce, aad, aad_length, data, length, tag));
    CHECK(memcmp(data, plain, length) == 0);
    backend->destroy(seal);
    backend->destroy(open);
  }
}

static void libcrypto_vectors(void) { check_vectors(&aead_libcrypto); }

static void every_flip_is_refused(void) {
  uint8_t key[32], nonce[12], aad[12], data[40], tag[16];
  random_bytes(key, sizeof key);
  void *seal = aead->create(key, true), *open = aead->create(key, false);
  for (unsigned bit = 0; bit < 8 * (sizeof nonce + sizeof aad + sizeof data + sizeof tag); bit++) {
    random_bytes(nonce, sizeof nonce);
    random_bytes(aad, sizeof aad);
    aead->seal(seal, nonce, aad, sizeof aad, data, sizeof data, tag);
    uint8_t *parts[] = {nonce, aad, data, tag};
    const size_t sizes[] = {sizeof nonce, sizeof aad, sizeof data, sizeof tag};
    size_t part = 0, at = bit;
    while (at >= 8 * sizes[part]) at -= 8 * sizes[part++];
    parts[part][at / 8] ^= (uint8_t)(1 << at % 8);
    CHECK(!aead->open(open, nonce, aad, sizeof aad, data, sizeof data, tag));
  }
  aead->destroy(seal);
  aead->destroy(open);
}

#ifdef HAVE_IPSEC_MB
static void ipsec_mb_vectors(void) {
  if (aead_ipsec_mb.available()) check_vectors(&aead_ipsec_mb);
}

static void implementations_agree(void) {
  if (!aead_ipsec_mb.available()) return;
  for (uint32_t length = 0; length < 1600; length++) {
    uint8_t key[32], nonce[12], aad[12], plain[1600], a[1600], b[1600], tag_a[16], tag_b[16];
    random_bytes(key, sizeof key);
    random_bytes(nonce, sizeof nonce);
    random_bytes(aad, sizeof aad);
    random_bytes(plain, length);
    memcpy(a, plain, length);
    memcpy(b, plain, length);
    void *seal = aead_libcrypto.create(key, true), *other = aead_ipsec_mb.create(key, true);
    void *open = aead_libcrypto.create(key, false);
    aead_libcrypto.seal(seal, nonce, aad, sizeof aad, a, length, tag_a);
    aead_ipsec_mb.seal(other, nonce, aad, sizeof aad, b, length, tag_b);
    CHECK(memcmp(a, b, length) == 0 && memcmp(tag_a, tag_b, sizeof tag_a) == 0);
    CHECK(aead_libcrypto.open(open, nonce, aad, sizeof aad, b, length, tag_b));
    CHECK(aead_ipsec_mb.open(other, nonce, aad, sizeof aad, a, length, tag_a));
    CHECK(memcmp(a, plain, length) == 0 && memcmp(b, plain, length) == 0);
    aead_libcrypto.destroy(seal);
    aead_libcrypto.destroy(open);
    aead_ipsec_mb.destroy(other);
  }
}
#endif

const struct test aead_tests[] = {
    {"aead: libcrypto gives the published vectors", libcrypto_vectors},
#ifdef HAVE_IPSEC_MB
    {"aead: ipsec-mb gives the published vectors", ipsec_mb_vectors},
    {"aead: the implementations agree at every length", implementations_agree},
#endif
    {"aead: any flipped bit of nonce, header, data or tag is refused", every_flip_is_refused},
    {0},
};
