// SPDX-License-Identifier: Apache-2.0
#include "vault.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

// Memory comes in regions aligned to their size, so that a block finds its region's header by masking its address.
// A region holds blocks of one size; a block too large for that gets a region of its own.
#define REGION ((size_t)256 << 10)
#define CHUNK ((size_t)2 << 20)

struct region {
  struct region *next, *previous;
  size_t length;     // of the mapping
  size_t block_size; // of each block
  unsigned class;    // index into `sizes`, or UINT32_MAX when it holds one oversized block
};

struct free_block {
  struct free_block *next;
};

static const size_t sizes[] = {64,   128,  192,  256,  384,  512,  768,   1024,  1536,
                               2048, 2560, 3072, 4096, 6144, 8192, 16384, 32768, 65536};

static struct {
  pthread_mutex_t lock;
  struct free_block *free[ARRAY_SIZE(sizes)];
  struct region *regions;
  uint8_t *chunk, *chunk_end; // what is left to be cut into regions
  size_t bytes;
  bool unlocked; // some page could not be locked
} vault = {.lock = PTHREAD_MUTEX_INITIALIZER};

// Maps `length` bytes aligned to `alignment`, both multiples of pages.
static uint8_t *map_aligned(size_t length, size_t alignment) {
  uint8_t *raw = mmap(NULL, length + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return NULL;
  uint8_t *start = (uint8_t *)(((uintptr_t)raw + alignment - 1) & ~(alignment - 1));
  if (start > raw) munmap(raw, (size_t)(start - raw));
  if (start < raw + alignment) munmap(start + length, (size_t)(raw + alignment - start));
  madvise(start, length, MADV_DONTDUMP);
  // Thousands of SAs in turn would miss the translation cache with each of their pages; in a guest twice as dearly.
  if (length % CHUNK == 0) madvise(start, length, MADV_HUGEPAGE);
  if (mlock2(start, length, MLOCK_ONFAULT) != 0) vault.unlocked = true;
  vault.bytes += length;
  return start;
}

static struct region *add_region(uint8_t *start, size_t length) {
  struct region *region = (struct region *)start;
  region->length = length;
  region->next = vault.regions;
  if (region->next != NULL) region->next->previous = region;
  vault.regions = region;
  return region;
}

// Regions of blocks are cut from chunks as large as a huge page.
static struct region *next_region(void) {
  if (vault.chunk == vault.chunk_end) {
    vault.chunk = map_aligned(CHUNK, CHUNK);
    vault.chunk_end = vault.chunk == NULL ? NULL : vault.chunk + CHUNK;
    if (vault.chunk == NULL) return NULL;
  }
  uint8_t *start = vault.chunk;
  vault.chunk += REGION;
  return add_region(start, REGION);
}

static void *allocate_oversize(size_t size) {
  if (size > SIZE_MAX - 2 * REGION) return NULL;
  size_t length = (size + CACHE_LINE + REGION - 1) & ~(REGION - 1);
  uint8_t *start = map_aligned(length, REGION);
  if (start == NULL) return NULL;
  struct region *region = add_region(start, length);
  region->class = UINT32_MAX;
  region->block_size = region->length - CACHE_LINE;
  return (uint8_t *)region + CACHE_LINE;
}

static void *allocate_class(unsigned class) {
  if (vault.free[class] == NULL) {
    struct region *region = next_region();
    if (region == NULL) return NULL;
    region->class = class;
    region->block_size = sizes[class];
    for (size_t at = CACHE_LINE; at + sizes[class] <= REGION; at += sizes[class]) {
      struct free_block *block = (struct free_block *)((uint8_t *)region + at);
      block->next = vault.free[class];
      vault.free[class] = block;
    }
  }
  struct free_block *block = vault.free[class];
  vault.free[class] = block->next;
  block->next = NULL;
  return block;
}

void *vault_alloc(size_t size) {
  unsigned class = 0;
  while (class < ARRAY_SIZE(sizes) && sizes[class] < size) class++;
  pthread_mutex_lock(&vault.lock);
  void *block = class < ARRAY_SIZE(sizes) ? allocate_class(class) : allocate_oversize(size);
  pthread_mutex_unlock(&vault.lock);
  return block;
}

static struct region *region_of(const void *block) { return (struct region *)((uintptr_t)block & ~(REGION - 1)); }

void vault_free(void *block) {
  if (block == NULL) return;
  struct region *region = region_of(block);
  explicit_bzero(block, region->block_size);
  pthread_mutex_lock(&vault.lock);
  if (region->class == UINT32_MAX) {
    if (region->previous != NULL) region->previous->next = region->next;
    if (region->next != NULL) region->next->previous = region->previous;
    if (vault.regions == region) vault.regions = region->next;
    vault.bytes -= region->length;
    munmap(region, region->length);
  } else {
    struct free_block *free = block;
    free->next = vault.free[region->class];
    vault.free[region->class] = free;
  }
  pthread_mutex_unlock(&vault.lock);
}

bool vault_locked(void) { return !vault.unlocked; }

size_t vault_bytes(void) { return vault.bytes; }

static void *libcrypto_alloc(size_t size, const char *file, int line) {
  (void)file, (void)line;
  return size == 0 ? NULL : vault_alloc(size);
}

static void libcrypto_free(void *block, const char *file, int line) {
  (void)file, (void)line;
  vault_free(block);
}

static void *libcrypto_realloc(void *block, size_t size, const char *file, int line) {
  if (block == NULL) return libcrypto_alloc(size, file, line);
  if (size == 0) {
    vault_free(block);
    return NULL;
  }
  size_t old = region_of(block)->block_size;
  if (size <= old) return block;
  void *bigger = vault_alloc(size);
  if (bigger == NULL) return NULL;
  memcpy(bigger, block, old);
  vault_free(block);
  return bigger;
}

bool vault_adopt_libcrypto(void) {
  return CRYPTO_set_mem_functions(libcrypto_alloc, libcrypto_realloc, libcrypto_free) == 1;
}

void vault_destroy(void) {
  pthread_mutex_lock(&vault.lock);
  for (struct region *region = vault.regions; region != NULL; region = region->next)
    explicit_bzero((uint8_t *)region + CACHE_LINE, region->length - CACHE_LINE);
}
