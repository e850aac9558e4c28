// SPDX-License-Identifier: Apache-2.0
// The smallest test frame: suites list their tests, a failed check says where and ends the program.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

struct test {
  const char *name;
  void (*run)(void);
};

_Noreturn void check_failed(const char *file, int line, const char *condition);

// Reproducible random numbers: the seed is printed, and taken from the environment variable SEED.
uint64_t random_u64(void);
// 0 … bound-1
uint32_t random_below(uint32_t bound);
void random_bytes(void *to, size_t length);

extern const struct test aead_tests[], checksum_tests[], coalesce_tests[], connection_tests[], esp_tests[], flow_tests[],
    handoff_tests[], hold_tests[], mtu_tests[], rcu_tests[], replay_tests[], requests_tests[], sa_tests[], segment_tests[],
    tos_tests[], udp_tests[], vault_tests[], vector_tests[];
