// SPDX-License-Identifier: Apache-2.0
// myelin-engine: started by the agent with descriptors 3 (TUN device), 4 (UDP socket), 5 (listening control socket); with more
// threads than one of either direction, then the others' queues of the TUN device, then their sockets of the port's group.
// Takes them, gives everything else up, and carries packets until it is told to end or the device goes.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "aead.h"
#include "control.h"
#include "engine.h"
#include "lockdown.h"
#include "log.h"
#include "probe.h"
#include "vault.h"

enum { TUN_FD = 3, UDP_FD = 4, CONTROL_FD = 5, MORE_FDS = 6 };

static struct engine engine;
static struct control control;

static uint64_t number(const char *text) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || *end != 0 || value == 0) log_exit("an option wants a positive number", EINVAL);
  return value;
}

static void parse_options(int argc, char **argv, struct engine_options *options) {
  enum { AEAD, TIMEOUT, PACKETS, PAIR_BYTES, TOTAL_BYTES, THREADS };
  static const struct option known[] = {
      {"aead", required_argument, NULL, AEAD},
      {"hold-timeout-ms", required_argument, NULL, TIMEOUT},
      {"hold-packets", required_argument, NULL, PACKETS},
      {"hold-pair-bytes", required_argument, NULL, PAIR_BYTES},
      {"hold-bytes", required_argument, NULL, TOTAL_BYTES},
      {"threads", required_argument, NULL, THREADS},
      {0},
  };
  for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
    switch (option) {
      case AEAD: options->aead = optarg; break;
      case TIMEOUT: options->hold.timeout_ms = number(optarg); break;
      case PACKETS: options->hold.packets_per_pair = (unsigned)number(optarg); break;
      case PAIR_BYTES: options->hold.bytes_per_pair = number(optarg); break;
      case TOTAL_BYTES: options->hold.bytes_total = number(optarg); break;
      case THREADS: options->lanes = (unsigned)number(optarg); break;
      default: log_exit("unknown option", EINVAL);
    }
  }
  if (options->lanes > LANES_MAX || (options->lanes & (options->lanes - 1)) != 0)
    log_exit("threads have to be 1, 2, 4 or 8", EINVAL);
}

// Checks and prepares one lane's descriptors.
static struct engine_ends configure_ends(unsigned lanes, unsigned lane, bool *gro) {
  int tun_fd = lane == 0 ? TUN_FD : MORE_FDS + (int)lane - 1;
  struct engine_ends ends = {.udp_fd = lane == 0 ? UDP_FD : MORE_FDS + (int)(lanes - 1 + lane - 1)};
  if (!tun_configure(&ends.tun, tun_fd))
    log_exit("descriptor 3 has to be a TUN device, IFF_NO_PI and IFF_VNET_HDR, and there has to be a queue for each thread", errno);
  if (!udp_configure(ends.udp_fd, gro)) log_exit("descriptor 4 has to be a bound UDP socket, and there has to be one for each thread", errno);
  return ends;
}

static void check_control_fd(void) {
  int listening = 0;
  socklen_t length = sizeof listening;
  if (getsockopt(CONTROL_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || !listening)
    log_exit("descriptor 5 has to be a listening control socket", errno);
}

// All threads meet here twice: when they run (the C library's own calls at a thread's start are not on the list), and when
// the lockdown is complete, before any looks at a packet.
static pthread_barrier_t barrier;

static void pass_gate(void) {
  pthread_barrier_wait(&barrier);
  pthread_barrier_wait(&barrier);
}

// A packet that arrives wakes its thread but does not push aside what is running: several packets are then done at one
// go. Measured on two busy cores: a third fewer context switches, 7 % less CPU for a byte, no longer round trips.
static void run_in_batches(void) { sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}); }

// Pods that keep every processor busy wait for these packets themselves. Where the scheduler shares processors out by
// session (sched(7), autogroups), nice values count within one only: this process's own has a nice value too. Without it an
// engine waited for seconds behind two busy loops of another session, and its device's queue ran over.
#define NICE (-10)
static void go_before_others(void) {
  setpriority(PRIO_PROCESS, 0, NICE);
  if (getsid(0) != getpid()) return;
  int fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return; // a kernel without
  dprintf(fd, "%d", NICE);
  close(fd);
}

static void *run_outbound(void *argument) {
  run_in_batches();
  pass_gate();
  return outbound_run(argument);
}

static void *run_inbound(void *argument) {
  run_in_batches();
  pass_gate();
  return inbound_run(argument);
}

static void start_thread(struct worker *worker, void *(*run)(void *), void *argument) {
  int error = pthread_create(&worker->thread, NULL, run, argument);
  if (error != 0) log_exit("cannot start a thread", error);
}

int main(int argc, char **argv) {
  struct engine_options options = {
      .aead = "auto",
      .lanes = 1,
      .hold = {.packets_per_pair = 1024, .bytes_per_pair = 256 << 10, .bytes_total = 16 << 20, .timeout_ms = 5000},
  };
  struct engine_ends ends[LANES_MAX];
  bool gro;
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN); // the agent's terminal may go
  parse_options(argc, argv, &options);
  close_range((unsigned)MORE_FDS + 2 * (options.lanes - 1), ~0u, 0); // what else the agent had open is none of our business
  mallopt(M_ARENA_MAX, 1); // a second arena would ask for the number of CPUs, which is not on the list of system calls
  go_before_others();
  if (!lockdown_process()) log_exit("cannot forbid core dumps", errno);
  if (!vault_adopt_libcrypto()) log_exit("libcrypto refused its allocator", 0);
  if (!aead_select(options.aead)) log_exit("no usable implementation of AES-256-GCM by that name", 0);
  for (unsigned lane = 0; lane < options.lanes; lane++) ends[lane] = configure_ends(options.lanes, lane, &gro);
  check_control_fd();
  int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd < 0 || !engine_init(&engine, &options, ends, gro, wake_fd)) log_exit("out of memory", errno);
  engine.kernel_esp = udp_kernel_esp(UDP_FD);
  if (!control_init(&control, &engine, CONTROL_FD, wake_fd)) log_exit("cannot watch the control socket", errno);

  if (!lockdown_privileges()) log_exit("cannot drop privileges", errno);
  pthread_barrier_init(&barrier, NULL, 2 * options.lanes + 1);
  for (unsigned lane = 0; lane < options.lanes; lane++) {
    start_thread(&engine.workers[WORKER_OUTBOUND + lane], run_outbound, &engine.outbound[lane]);
    start_thread(&engine.workers[WORKER_INBOUND + lane], run_inbound, &engine.inbound[lane]);
  }
  pthread_barrier_wait(&barrier);
  if (!lockdown_calls()) log_exit("cannot restrict system calls", errno);
  pthread_barrier_wait(&barrier);
  char ready[64];
  snprintf(ready, sizeof ready, "ready, AES-256-GCM by %s", aead->name);
  log_line(LOG_INFO, ready, 0);
  probe_lockdown();
  control_run(&control);
  vault_destroy();
  _exit(0);
}
