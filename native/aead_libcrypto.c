// SPDX-License-Identifier: Apache-2.0
// AES-256-GCM through OpenSSL's EVP: one context per SA and direction that keeps its key schedule.
#include <openssl/evp.h>

#include "aead.h"

static bool available(void) { return true; }

static void *create(const uint8_t key[AEAD_KEY], bool seal) {
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  if (context == NULL) return NULL;
  if (EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, NULL, seal ? 1 : 0) != 1) {
    EVP_CIPHER_CTX_free(context);
    return NULL;
  }
  return context;
}

static void destroy(void *handle) { EVP_CIPHER_CTX_free(handle); }

static void seal(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
                 size_t length, uint8_t tag[AEAD_TAG]) {
  int n;
  // With a key set none of these can fail short of a broken library, and then nothing readable may leave.
  bool sealed = EVP_EncryptInit_ex(handle, NULL, NULL, NULL, nonce) == 1 &&
                EVP_EncryptUpdate(handle, NULL, &n, aad, (int)aad_length) == 1 &&
                EVP_EncryptUpdate(handle, data, &n, data, (int)length) == 1 &&
                EVP_EncryptFinal_ex(handle, data + length, &n) == 1 &&
                EVP_CIPHER_CTX_ctrl(handle, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG, tag) == 1;
  if (!sealed) {
    memset(data, 0, length);
    memset(tag, 0, AEAD_TAG);
  }
}

static bool open(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
                 size_t length, const uint8_t tag[AEAD_TAG]) {
  int n;
  uint8_t expected[AEAD_TAG];
  memcpy(expected, tag, sizeof expected);
  return EVP_DecryptInit_ex(handle, NULL, NULL, NULL, nonce) == 1 &&
         EVP_CIPHER_CTX_ctrl(handle, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG, expected) == 1 &&
         EVP_DecryptUpdate(handle, NULL, &n, aad, (int)aad_length) == 1 &&
         EVP_DecryptUpdate(handle, data, &n, data, (int)length) == 1 &&
         EVP_DecryptFinal_ex(handle, data + length, &n) == 1;
}

const struct aead_backend aead_libcrypto = {"libcrypto", 0, available, create, destroy, seal, open};
