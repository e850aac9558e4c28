// SPDX-License-Identifier: Apache-2.0
// AES-256-GCM with a 16-byte tag, over whichever implementation is fastest here. One handle per SA holds the expanded
// key; per packet only the nonce is given.
#pragma once

#include "common.h"

#define AEAD_KEY 32
#define AEAD_NONCE 12
#define AEAD_TAG 16

// One implementation. A handle is used by one thread at a time.
struct aead_backend {
  const char *name;
  // Bytes at the start of a handle that every packet needs; 0 where they are not in one piece.
  size_t hot;
  // Whether this machine can run it.
  bool (*available)(void);
  // A handle for one direction, in vault memory, or NULL.
  void *(*create)(const uint8_t key[AEAD_KEY], bool seal);
  void (*destroy)(void *handle);
  // Encrypts `data` in place and writes the tag.
  void (*seal)(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
               size_t length, uint8_t tag[AEAD_TAG]);
  // Decrypts `data` in place. False, with `data` in an undefined state, unless the tag is right.
  bool (*open)(void *handle, const uint8_t nonce[AEAD_NONCE], const uint8_t *aad, size_t aad_length, uint8_t *data,
               size_t length, const uint8_t tag[AEAD_TAG]);
};

extern const struct aead_backend aead_libcrypto;
#ifdef HAVE_IPSEC_MB
extern const struct aead_backend aead_ipsec_mb;
#endif

// The one in use.
extern const struct aead_backend *aead;

// Chooses: "auto", or one by name. It must pass the known-answer test; false, with nothing chosen, if none does.
bool aead_select(const char *name);
// NIST SP 800-38D vectors, sealed and opened, and a forged tag refused.
bool aead_self_test(const struct aead_backend *backend);
