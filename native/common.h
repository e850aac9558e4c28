// SPDX-License-Identifier: Apache-2.0
// Small things that every file needs: branch hints, unaligned loads and stores, addresses.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define CACHE_LINE 64
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio headers and the control protocol are little endian");

static inline uint16_t load_be16(const uint8_t *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return __builtin_bswap16(v);
}

static inline uint32_t load_be32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return __builtin_bswap32(v);
}

static inline void store_be16(uint8_t *p, uint16_t v) {
  v = __builtin_bswap16(v);
  memcpy(p, &v, sizeof v);
}

static inline void store_be32(uint8_t *p, uint32_t v) {
  v = __builtin_bswap32(v);
  memcpy(p, &v, sizeof v);
}

static inline void store_be64(uint8_t *p, uint64_t v) {
  v = __builtin_bswap64(v);
  memcpy(p, &v, sizeof v);
}

// An inner address, 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
struct addr {
  uint64_t word[2];
};

// The inner addresses of a packet or an SA as this node sees them: `local` is a pod here, `remote` one elsewhere.
struct pair {
  struct addr local;
  struct addr remote;
};

// Where the other node's ESP socket is. `port` in host order.
struct underlay {
  struct addr address;
  uint16_t port;
};

static inline struct addr addr_from_ip4(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return (struct addr){{0, (uint64_t)v << 32 | 0xffff0000u}};
}

static inline struct addr addr_from_ip6(const uint8_t *p) {
  struct addr a;
  memcpy(&a, p, sizeof a);
  return a;
}

static inline bool addr_equal(struct addr a, struct addr b) {
  return ((a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1])) == 0;
}

static inline bool addr_is_ip4(struct addr a) { return a.word[0] == 0 && (uint32_t)a.word[1] == 0xffff0000u; }

static inline bool pair_equal(const struct pair *a, const struct pair *b) {
  return addr_equal(a->local, b->local) && addr_equal(a->remote, b->remote);
}
