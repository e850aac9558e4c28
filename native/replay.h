// SPDX-License-Identifier: Apache-2.0
// The anti-replay window of one inbound SA with 64-bit sequence numbers (RFC 4303 section 3.4.3 and appendix A).
#pragma once

#include "common.h"

#define REPLAY_MIN 64
#define REPLAY_MAX 32768

enum replay_verdict { REPLAY_FRESH, REPLAY_SEEN, REPLAY_OLD };

// A ring of one bit per sequence number: number n is bit n mod `size`, valid for top-size < n <= top.
struct replay {
  uint64_t top;   // highest number verified so far
  uint32_t size;  // a power of two, REPLAY_MIN … REPLAY_MAX
  uint64_t *bits; // size / 64 words, zeroed at the start
};

static inline bool replay_test(const struct replay *r, uint64_t n) {
  uint32_t bit = (uint32_t)n & (r->size - 1);
  return (r->bits[bit / 64] >> (bit % 64)) & 1;
}

static inline void replay_set(struct replay *r, uint64_t n) {
  uint32_t bit = (uint32_t)n & (r->size - 1);
  r->bits[bit / 64] |= (uint64_t)1 << (bit % 64);
}

// The full sequence number of a packet that carries only the low 32 bits: the one that lies in the window or next above
// it (RFC 4303 appendix A2.2).
static inline uint64_t replay_infer(const struct replay *r, uint32_t low) {
  uint32_t top_low = (uint32_t)r->top, high = (uint32_t)(r->top >> 32);
  uint32_t bottom = top_low - r->size + 1;
  if (top_low >= r->size - 1) {
    if (low < bottom) high++; // case A: the window lies within one subspace; below it means the next one
  } else if (low >= bottom) {
    // Case B: the window spans two subspaces; what is that high belongs to the previous one. There is none before the first.
    if (high > 0) high--;
  }
  return (uint64_t)high << 32 | low;
}

// Before authentication: may a packet with this number still be accepted?
static inline enum replay_verdict replay_check(const struct replay *r, uint64_t n) {
  if (n > r->top) return REPLAY_FRESH;
  if (n == 0) return REPLAY_SEEN; // the first packet of an SA is number 1 (RFC 4303 section 3.3.3)
  if (r->top - n >= r->size) return REPLAY_OLD;
  return replay_test(r, n) ? REPLAY_SEEN : REPLAY_FRESH;
}

// After authentication: never accept this number again.
static inline void replay_update(struct replay *r, uint64_t n) {
  if (n > r->top) {
    if (n - r->top >= r->size) {
      memset(r->bits, 0, r->size / 8);
    } else {
      for (uint64_t skipped = r->top + 1; skipped < n;) {
        uint32_t bit = (uint32_t)skipped & (r->size - 1);
        if (bit % 64 == 0 && n - skipped >= 64) {
          r->bits[bit / 64] = 0;
          skipped += 64;
        } else {
          r->bits[bit / 64] &= ~((uint64_t)1 << (bit % 64));
          skipped++;
        }
      }
    }
    r->top = n;
  }
  replay_set(r, n);
}
