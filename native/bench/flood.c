// SPDX-License-Identifier: Apache-2.0
// A load of datagrams that costs as little as can be, so that what is measured is what lies between the ends.
//   flood send ADDRESS PORT BYTES RATE MILLISECONDS     RATE in datagrams a second; prints how many were sent
//   flood spread SOURCE SOURCES ADDRESS ADDRESSES PORT BYTES RATE MILLISECONDS
//                                                       the same from so many addresses to so many, in turn; no two
//                                                       packets that follow one another are of one flow
//   flood receive PORT                                  prints "ready", takes all there is until it is ended
// Many datagrams to a system call, each one by itself to the network stack (no UDP_SEGMENT, no UDP_GRO).
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 32
#define LARGEST 9000
#define BUFFER (4 << 20)

static uint8_t data[BATCH][LARGEST];
static struct iovec pieces[BATCH];
static struct mmsghdr messages[BATCH];

static void prepare(size_t length) {
  for (int i = 0; i < BATCH; i++) {
    pieces[i] = (struct iovec){data[i], length};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
  }
}

static int udp_socket(int option) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = BUFFER;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes) != 0) {
    perror("socket");
    exit(1);
  }
  return fd;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int transmit(char **arguments) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[1]))};
  size_t length = strtoul(arguments[2], NULL, 10);
  double rate = atof(arguments[3]), duration = atof(arguments[4]) / 1000;
  int fd = udp_socket(SO_SNDBUFFORCE);
  if (inet_pton(AF_INET, arguments[0], &to.sin_addr) != 1 || length > LARGEST || rate <= 0) return 2;
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) return 1;
  prepare(length);
  uint64_t sent = 0;
  double start = seconds(), elapsed = 0;
  while ((elapsed = seconds() - start) < duration) {
    double due = elapsed * rate - (double)sent;
    if (due < BATCH) { // a batch at a time: sleeping costs a switch
      double wait = (BATCH - due) / rate;
      nanosleep(&(struct timespec){.tv_nsec = (long)((wait < 0.1 ? wait : 0.1) * 1e9)}, NULL);
      continue;
    }
    int n = sendmmsg(fd, messages, BATCH, 0);
    if (n > 0) sent += (uint64_t)n;
  }
  printf("%llu\n", (unsigned long long)sent);
  return 0;
}

#define SOCKETS 100
#define ADDRESSES 256
#define SPREAD_BATCH 10

// The addresses that follow one another from `text` on.
static struct sockaddr_in at(const char *text, uint32_t index, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) exit(2);
  address.sin_addr.s_addr = htonl(ntohl(address.sin_addr.s_addr) + index);
  return address;
}

static int spread(char **arguments) {
  static struct sockaddr_in to[ADDRESSES];
  int fds[SOCKETS];
  unsigned sources = (unsigned)atoi(arguments[1]), addresses = (unsigned)atoi(arguments[3]);
  size_t length = strtoul(arguments[5], NULL, 10);
  double rate = atof(arguments[6]), duration = atof(arguments[7]) / 1000;
  if (sources < 1 || addresses < SPREAD_BATCH || addresses > ADDRESSES || length > LARGEST || rate <= 0) return 2;
  for (unsigned i = 0; i < addresses; i++) to[i] = at(arguments[2], i, (uint16_t)atoi(arguments[4]));
  for (unsigned i = 0; i < SOCKETS; i++) {
    struct sockaddr_in from = at(arguments[0], i % sources, 0);
    fds[i] = udp_socket(SO_SNDBUFFORCE);
    if (bind(fds[i], (struct sockaddr *)&from, sizeof from) != 0) return 1;
  }
  prepare(length);
  uint64_t sent = 0;
  unsigned source = 0, address = 0;
  double start = seconds(), elapsed = 0;
  while ((elapsed = seconds() - start) < duration) {
    double due = elapsed * rate - (double)sent;
    if (due < SPREAD_BATCH) {
      nanosleep(&(struct timespec){.tv_nsec = (long)((SPREAD_BATCH - due) / rate * 1e9)}, NULL);
      continue;
    }
    for (int i = 0; i < SPREAD_BATCH; i++) {
      messages[i].msg_hdr.msg_name = &to[address];
      messages[i].msg_hdr.msg_namelen = sizeof to[address];
      if (++address == addresses) address = 0;
    }
    int n = sendmmsg(fds[source], messages, SPREAD_BATCH, 0);
    if (n > 0) sent += (uint64_t)n;
    if (++source == SOCKETS) source = 0;
  }
  printf("%llu\n", (unsigned long long)sent);
  return 0;
}

static int take(char **arguments) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[0]))};
  int fd = udp_socket(SO_RCVBUFFORCE);
  if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0) return 1;
  prepare(LARGEST);
  puts("ready");
  fflush(stdout);
  for (;;)
    if (recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL) < 0) return 1;
}

int main(int argc, char **argv) {
  if (argc == 7 && strcmp(argv[1], "send") == 0) return transmit(argv + 2);
  if (argc == 10 && strcmp(argv[1], "spread") == 0) return spread(argv + 2);
  if (argc == 3 && strcmp(argv[1], "receive") == 0) return take(argv + 2);
  fprintf(stderr, "flood send ADDRESS PORT BYTES RATE MILLISECONDS | flood spread … | flood receive PORT\n");
  return 2;
}
