// SPDX-License-Identifier: Apache-2.0
// The replay window against a model that remembers everything.
#include <stdlib.h>
#include <string.h>

#include "../replay.h"
#include "check.h"

#define SPAN 200000

struct model {
  uint64_t base; // numbers base … base+SPAN-1 are modelled
  uint64_t top;
  bool seen[SPAN];
};

static enum replay_verdict expected(const struct model *m, uint32_t window, uint64_t n) {
  if (n > m->top) return REPLAY_FRESH;
  if (m->top - n >= window) return REPLAY_OLD;
  return m->seen[n - m->base] ? REPLAY_SEEN : REPLAY_FRESH;
}

static void walk(uint32_t window, uint64_t start) {
  static struct model model;
  static uint64_t bits[REPLAY_MAX / 64];
  memset(&model, 0, sizeof model);
  memset(bits, 0, sizeof bits);
  model.base = start - window;
  model.top = start;
  model.seen[start - model.base] = true;
  struct replay replay = {.top = start, .size = window, .bits = bits};
  replay_set(&replay, start);
  for (int step = 0; step < 20000; step++) {
    uint64_t n;
    switch (random_below(4)) {
      case 0: n = model.top + 1; break;                                      // in order
      case 1: n = model.top + 1 + random_below(5); break;                    // small gaps
      case 2: n = model.top - random_below(window + window / 4); break;      // late, some too late
      default: n = model.top + random_below(random_below(50) == 0 ? 2 * window : 100); break;
    }
    if (n == 0) continue;
    if (n - model.base >= SPAN) return;
    // What the packet carries is the low half only; the rest is inferred and must come out right for anything in reach.
    if (n > model.top || model.top - n < window) CHECK(replay_infer(&replay, (uint32_t)n) == n);
    enum replay_verdict verdict = replay_check(&replay, n);
    CHECK(verdict == expected(&model, window, n));
    if (verdict != REPLAY_FRESH) continue;
    replay_update(&replay, n);
    model.seen[n - model.base] = true;
    if (n > model.top) model.top = n;
    CHECK(replay_check(&replay, n) == REPLAY_SEEN);
    CHECK(replay.top == model.top);
  }
}

static void against_model(void) {
  for (uint32_t window = REPLAY_MIN; window <= REPLAY_MAX; window *= 2) {
    walk(window, window);
    walk(window, (uint64_t)1 << 32); // around the first wrap of the low half
    walk(window, ((uint64_t)1 << 32) - window / 2);
    walk(window, (random_u64() >> 16) + SPAN);
  }
}

static void first_packets(void) {
  uint64_t bits[1] = {0};
  struct replay replay = {.size = 64, .bits = bits};
  CHECK(replay_check(&replay, replay_infer(&replay, 0)) == REPLAY_SEEN); // there is no number 0
  CHECK(replay_infer(&replay, 1) == 1 && replay_check(&replay, 1) == REPLAY_FRESH);
  replay_update(&replay, 3);
  CHECK(replay_check(&replay, 2) == REPLAY_FRESH && replay_check(&replay, 1) == REPLAY_FRESH);
  replay_update(&replay, 1);
  CHECK(replay_check(&replay, 1) == REPLAY_SEEN && replay_check(&replay, 3) == REPLAY_SEEN);
  // A number near 2^32 at the very start cannot belong to a subspace before the first.
  CHECK(replay_infer(&replay, 0xffffffff) == 0xffffffff);
}

static void inference_follows_the_standard(void) {
  // RFC 4303 appendix A2.2 with W = 64, both cases.
  uint64_t bits[1] = {0};
  struct replay replay = {.size = 64, .bits = bits};
  replay.top = 0x5000003ff; // case A: the window lies within one subspace
  CHECK(replay_infer(&replay, 0x3ff) == 0x5000003ff);
  CHECK(replay_infer(&replay, 0x3ff - 63) == 0x5000003ff - 63);
  CHECK(replay_infer(&replay, 0x3ff - 64) == 0x6000003ff - 64);
  CHECK(replay_infer(&replay, 0xffffffff) == 0x5ffffffff);
  replay.top = 0x500000010; // case B: it spans two
  CHECK(replay_infer(&replay, 0x10) == 0x500000010);
  CHECK(replay_infer(&replay, 0xffffffff) == 0x4ffffffff);
  CHECK(replay_infer(&replay, (uint32_t)(0x10 - 63)) == 0x500000010 - 63);
  CHECK(replay_infer(&replay, (uint32_t)(0x10 - 64)) == 0x600000010 - 64);
}

const struct test replay_tests[] = {
    {"replay: agrees with a model that forgets nothing", against_model},
    {"replay: the first packets of an SA", first_packets},
    {"replay: high half inferred as RFC 4303 appendix A2.2 says", inference_follows_the_standard},
    {0},
};
