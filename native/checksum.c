// SPDX-License-Identifier: Apache-2.0
#include "checksum.h"

static inline uint64_t add_tail(const uint8_t *data, size_t length, uint64_t sum) {
  for (; length >= 4; length -= 4, data += 4) {
    uint32_t word;
    memcpy(&word, data, sizeof word);
    sum += word;
  }
  uint32_t rest = 0; // RFC 1071: an odd last byte is padded with zero
  memcpy(&rest, data, length);
  return sum + rest;
}

uint64_t checksum_add_plain(const uint8_t *data, size_t length, uint64_t sum) { return add_tail(data, length, sum); }

uint64_t checksum_copy_plain(uint8_t *to, const uint8_t *from, size_t length, uint64_t sum) {
  memcpy(to, from, length);
  return add_tail(from, length, sum);
}

uint64_t (*checksum_add)(const uint8_t *data, size_t length, uint64_t sum) = checksum_add_plain;
uint64_t (*checksum_copy)(uint8_t *to, const uint8_t *from, size_t length, uint64_t sum) = checksum_copy_plain;

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

// Two accumulators of four 64-bit lanes take the even and the odd 32-bit words of each vector.
struct accumulator {
  __m256i even, odd;
};

AVX2 static inline void accumulate(struct accumulator *a, __m256i v) {
  const __m256i low = _mm256_set1_epi64x(0xffffffff);
  a->even = _mm256_add_epi64(a->even, _mm256_and_si256(v, low));
  a->odd = _mm256_add_epi64(a->odd, _mm256_srli_epi64(v, 32));
}

AVX2 static inline uint64_t total(const struct accumulator *a) {
  __m256i all = _mm256_add_epi64(a->even, a->odd);
  __m128i half = _mm_add_epi64(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
}

AVX2 static uint64_t add_avx2(const uint8_t *data, size_t length, uint64_t sum) {
  struct accumulator a = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (; length >= 64; length -= 64, data += 64) {
    accumulate(&a, _mm256_loadu_si256((const __m256i *)data));
    accumulate(&a, _mm256_loadu_si256((const __m256i *)(data + 32)));
  }
  return add_tail(data, length, sum + total(&a));
}

AVX2 static uint64_t copy_avx2(uint8_t *to, const uint8_t *from, size_t length, uint64_t sum) {
  struct accumulator a = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (; length >= 64; length -= 64, from += 64, to += 64) {
    __m256i first = _mm256_loadu_si256((const __m256i *)from);
    __m256i second = _mm256_loadu_si256((const __m256i *)(from + 32));
    accumulate(&a, first);
    accumulate(&a, second);
    _mm256_storeu_si256((__m256i *)to, first);
    _mm256_storeu_si256((__m256i *)(to + 32), second);
  }
  memcpy(to, from, length);
  return add_tail(from, length, sum + total(&a));
}

__attribute__((constructor)) static void choose(void) {
  if (!__builtin_cpu_supports("avx2")) return;
  checksum_add = add_avx2;
  checksum_copy = copy_avx2;
}
#endif
