// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void log_line(int level, const char *message, int error) {
  char line[512], detail[128] = "";
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (error != 0) snprintf(detail, sizeof detail, ",\"errno\":\"%s\"", strerrorname_np(error));
  int length = snprintf(line, sizeof line, "{\"level\":%d,\"time\":%lld,\"name\":\"engine\",\"pid\":%d,\"msg\":\"%s\"%s}\n",
                        level, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, (int)getpid(), message, detail);
  if (write(STDERR_FILENO, line, (size_t)length) < 0) return; // whoever listened is gone
}

_Noreturn void log_exit(const char *message, int error) {
  log_line(LOG_FATAL, message, error);
  _exit(1);
}
