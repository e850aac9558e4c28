// SPDX-License-Identifier: Apache-2.0
#include "../vault.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void blocks(void) {
  enum { COUNT = 300 };
  uint8_t *block[COUNT] = {0};
  size_t length[COUNT];
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < COUNT; i++) {
      if (block[i] != NULL) {
        for (size_t j = 0; j < length[i]; j += 97) CHECK(block[i][j] == (uint8_t)i);
        vault_free(block[i]);
      }
      length[i] = 1 + random_below(random_below(20) == 0 ? 400000 : 5000);
      block[i] = vault_alloc(length[i]);
      CHECK(block[i] != NULL && (uintptr_t)block[i] % CACHE_LINE == 0);
      for (size_t j = 0; j < length[i]; j += 61) CHECK(block[i][j] == 0);
      memset(block[i], i, length[i]);
    }
  }
  for (int i = 0; i < COUNT; i++) vault_free(block[i]);
  vault_free(NULL);
}

static void freed_is_zeroed(void) {
  volatile uint8_t *secret = vault_alloc(1000);
  memset((void *)secret, 0xa5, 1000);
  vault_free((void *)secret);
  // The free list's link is at the start; everything behind it has to be gone. The region stays mapped.
  for (size_t i = sizeof(void *); i < 1000; i++) CHECK(secret[i] == 0);
}

static void libcrypto_allocates_here(void) {
  size_t before = vault_bytes();
  void *block = OPENSSL_malloc(1 << 20);
  CHECK(block != NULL && vault_bytes() >= before + (1 << 20));
  uint8_t *bigger = OPENSSL_realloc(block, 3 << 20);
  CHECK(bigger != NULL);
  OPENSSL_free(bigger);
  CHECK(vault_bytes() == before);
}

const struct test vault_tests[] = {
    {"vault: blocks are zeroed, aligned and apart", blocks},
    {"vault: a freed block is zeroed", freed_is_zeroed},
    {"vault: libcrypto allocates in it", libcrypto_allocates_here},
    {0},
};
