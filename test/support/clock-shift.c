// SPDX-License-Identifier: Apache-2.0
// Preloaded into a process (LD_PRELOAD), it has that process's wall clock run apart from the machine's by as many seconds as
// CLOCK_SHIFT says: what the process takes for the time, OpenSSL's idea of it included. Monotonic clocks stay.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t shift(void) {
  static int known;
  static time_t seconds;
  if (!known) {
    const char *text = getenv("CLOCK_SHIFT");
    seconds = text == NULL ? 0 : (time_t)strtol(text, NULL, 10);
    known = 1;
  }
  return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec t;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &t) != 0) return -1;
  now->tv_sec = t.tv_sec;
  now->tv_usec = t.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *to) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  if (to != NULL) *to = t.tv_sec;
  return t.tv_sec;
}
