// SPDX-License-Identifier: Apache-2.0
#include "lockdown.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

#define NOBODY 65534

bool lockdown_process(void) {
  const struct rlimit none = {0, 0}, unlimited = {RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &unlimited); // refused without privileges; then keys are locked as far as the limit goes
  return setrlimit(RLIMIT_CORE, &none) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0;
}

// Changes root into a directory that is deleted at once: nothing can be looked up in it or made in it.
static bool leave_file_system(void) {
  static const char *const places[] = {"/run", "/tmp", "/var/tmp"};
  for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
    char name[] = "myelin-engine-XXXXXX", path[64];
    int parent = open(places[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0) continue;
    snprintf(path, sizeof path, "%s/%s", places[i], name);
    bool left = mkdtemp(path) != NULL && chroot(path) == 0 && chdir("/") == 0;
    bool deleted = unlinkat(parent, path + strlen(places[i]) + 1, AT_REMOVEDIR) == 0;
    close(parent);
    if (left) return deleted;
  }
  return false;
}

static bool drop_capabilities(void) {
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
    if (prctl(PR_CAPBSET_DROP, capability) != 0 && errno != EPERM) return false;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                               SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                               SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED);
  return true;
}

static bool clear_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
  return syscall(SYS_capset, &header, none) == 0;
}

bool lockdown_privileges(void) {
  if (geteuid() == 0) {
    if (!leave_file_system() || !drop_capabilities()) return false;
    if (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)
      return false;
  }
  // Changing the user made the process as dumpable as the system's default says.
  return clear_capabilities() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0;
}

static const int allowed[] = {
    // moving packets
    SCMP_SYS(read), SCMP_SYS(preadv2), SCMP_SYS(writev), SCMP_SYS(recvmmsg), SCMP_SYS(sendmmsg), SCMP_SYS(sendto),
    SCMP_SYS(poll), SCMP_SYS(ppoll),
    // the control thread
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(accept4), SCMP_SYS(recvmsg), SCMP_SYS(write),
    SCMP_SYS(close),
    // memory; mapping is checked for its protection below
    SCMP_SYS(munmap), SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(mlock2),
    // threads, time, the end
    SCMP_SYS(futex), SCMP_SYS(clock_gettime), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigreturn), SCMP_SYS(getpid),
    SCMP_SYS(exit), SCMP_SYS(exit_group),
};

// Memory may be mapped or its protection changed, but never so that it can be executed.
static bool allow_without_exec(scmp_filter_ctx filter, int call) {
  return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) == 0;
}

#ifdef MYELIN_NO_SECCOMP
// Sanitizers make system calls of their own; a build with them is for tests only.
bool lockdown_calls(void) {
  (void)allowed, (void)allow_without_exec;
  return true;
}
#else
bool lockdown_calls(void) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
  if (filter == NULL) return false;
  // Of another architecture's entry too (x32, 32-bit): by default it would end the one thread only.
  bool good = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) == 0 &&
              seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0;
  for (size_t i = 0; good && i < ARRAY_SIZE(allowed); i++)
    good = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) == 0;
  const struct scmp_arg_cmp who_connects[] = {{.arg = 1, .op = SCMP_CMP_EQ, .datum_a = SOL_SOCKET},
                                              {.arg = 2, .op = SCMP_CMP_EQ, .datum_a = SO_PEERCRED}};
  good = good && seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(getsockopt), 2, who_connects) == 0;
  good = good && allow_without_exec(filter, SCMP_SYS(mmap)) && allow_without_exec(filter, SCMP_SYS(mprotect)) &&
         seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mremap), 0) == 0 && seccomp_load(filter) == 0;
  seccomp_release(filter);
  return good;
}
#endif
