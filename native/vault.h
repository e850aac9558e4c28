// SPDX-License-Identifier: Apache-2.0
// The allocator for whatever holds keys: its pages are locked into RAM where the limits allow, left out of core dumps,
// and every block is zeroed when it is freed. libcrypto is made to allocate here too: its contexts hold expanded keys.
#pragma once

#include "common.h"

// Zeroed memory aligned to a cache line, or NULL. Any thread.
void *vault_alloc(size_t size);
// Zeroes and frees; NULL is nothing.
void vault_free(void *block);
// Whether every page so far could be locked.
bool vault_locked(void);
// Bytes of address space taken from the system.
size_t vault_bytes(void);
// Makes libcrypto use the vault. Call before any of its functions.
bool vault_adopt_libcrypto(void);
// Zeroes everything, whoever still uses it. The process must end at once.
void vault_destroy(void);
