// SPDX-License-Identifier: Apache-2.0
// The usual calls of an exploit, tried from inside the lockdown. Part of a test build only, see probe.h.
#include "probe.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32 0x40000000 // the bit by which x86-64 calls the x32 table

static uint8_t page[4096] __attribute__((aligned(4096)));

// The same numbers mean other calls to the 32-bit entry: a filter that looks at numbers alone lets them pass.
static long call_by_32_bit_entry(void) {
#ifdef __x86_64__
  long result = 20; // getpid there, writev here
  __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
  return result;
#else
  return syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
#endif
}

static long try_call(const char *name) {
  // By number, without sensible arguments: whether the call is let through at all.
  if (isdigit((unsigned char)name[0])) return syscall(strtol(name, NULL, 10), 0, 0, 0, 0, 0, 0);
  if (strcmp(name, "execve") == 0) return execl("/bin/sh", "sh", (char *)NULL);
  if (strcmp(name, "open") == 0) return open("/etc/passwd", O_RDONLY);
  if (strcmp(name, "socket") == 0) return socket(AF_INET, SOCK_STREAM, 0);
  if (strcmp(name, "connect") == 0) return connect(0, NULL, 0);
  if (strcmp(name, "ptrace") == 0) return ptrace(PTRACE_ATTACH, 1, NULL, NULL);
  if (strcmp(name, "fork") == 0) return fork();
  if (strcmp(name, "mmap-exec") == 0)
    return (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (strcmp(name, "mprotect-exec") == 0) return mprotect(page, sizeof page, PROT_READ | PROT_EXEC);
  if (strcmp(name, "getsockopt-other") == 0) return getsockopt(4, SOL_SOCKET, SO_TYPE, page, &(socklen_t){4});
  if (strcmp(name, "x32") == 0) return syscall(SYS_getpid | X32);
  if (strcmp(name, "32-bit") == 0) return call_by_32_bit_entry();
  // On the list: these show that the probe works.
  if (strcmp(name, "getpid") == 0) return syscall(SYS_getpid);
  if (strcmp(name, "mmap") == 0)
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  if (strcmp(name, "mprotect") == 0) return mprotect(page, sizeof page, PROT_READ);
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
