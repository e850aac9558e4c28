// SPDX-License-Identifier: Apache-2.0
// Runs all unit tests, or those whose name contains the argument, and prints a line for each; with --layout, prints the
// control protocol's layout instead.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../aead.h"
#include "../vault.h"
#include "check.h"
#include "layout.h"

static uint64_t state;
static const char *running = "";

_Noreturn void check_failed(const char *file, int line, const char *condition) {
  printf("not ok %s: %s:%d: %s\n", running, file, line, condition);
  fflush(stdout);
  abort();
}

uint64_t random_u64(void) { // splitmix64
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint32_t random_below(uint32_t bound) { return (uint32_t)((random_u64() >> 32) * bound >> 32); }

void random_bytes(void *to, size_t length) {
  for (uint8_t *p = to; length > 0; length--) *p++ = (uint8_t)random_u64();
}

static void run(const struct test *tests, const char *filter) {
  for (; tests->name != NULL; tests++) {
    if (strstr(tests->name, filter) == NULL) continue;
    running = tests->name;
    tests->run();
    printf("ok %s\n", tests->name);
  }
}

int main(int argc, char **argv) {
  const char *seed = getenv("SEED"), *filter = argc > 1 ? argv[1] : "";
  if (strcmp(filter, "--layout") == 0) {
    layout_print();
    return 0;
  }
  state = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
  printf("# SEED=%llu\n", (unsigned long long)state);
  if (!vault_adopt_libcrypto() || !aead_select("auto")) return 1;
  const struct test *suites[] = {aead_tests, checksum_tests, coalesce_tests, connection_tests, esp_tests,
                                 flow_tests, handoff_tests, hold_tests,     mtu_tests,        rcu_tests,      replay_tests,     requests_tests,
                                 sa_tests,   segment_tests,  tos_tests,        udp_tests,      vault_tests,
                                 vector_tests};
  for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) run(suites[i], filter);
  return 0;
}
