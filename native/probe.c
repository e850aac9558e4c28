// SPDX-License-Identifier: Apache-2.0
// The usual calls of an exploit, tried from inside the lockdown. Part of a test build only, see probe.h.
#include "probe.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static long try_call(const char *name) {
  if (strcmp(name, "execve") == 0) return execl("/bin/sh", "sh", (char *)NULL);
  if (strcmp(name, "open") == 0) return open("/etc/passwd", O_RDONLY);
  if (strcmp(name, "socket") == 0) return socket(AF_INET, SOCK_STREAM, 0);
  if (strcmp(name, "connect") == 0) return connect(0, NULL, 0);
  if (strcmp(name, "ptrace") == 0) return ptrace(PTRACE_ATTACH, 1, NULL, NULL);
  if (strcmp(name, "fork") == 0) return fork();
  if (strcmp(name, "kill") == 0) return syscall(SYS_kill, 1, 0);
  if (strcmp(name, "ioctl") == 0) return syscall(SYS_ioctl, 3, 0, 0);
  if (strcmp(name, "mmap-exec") == 0)
    return (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (strcmp(name, "setuid") == 0) return syscall(SYS_setuid, 0);
  if (strcmp(name, "io_uring") == 0) return syscall(SYS_io_uring_setup, 8, NULL);
  if (strcmp(name, "getpid") == 0) return syscall(SYS_getpid); // on the list: shows that the probe works
  return 0;
}

void probe_lockdown(void) {
  char line[128];
  const char *name = getenv("MYELIN_PROBE");
  if (name == NULL) return;
  long result = try_call(name);
  int length = snprintf(line, sizeof line, "survived %s: %ld\n", name, result);
  if (write(STDERR_FILENO, line, (size_t)length) < 0) _exit(3);
  _exit(0);
}
