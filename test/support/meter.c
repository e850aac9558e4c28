// SPDX-License-Identifier: Apache-2.0
// One end of a stream meter (meter.ts): sends numbered datagrams at a steady rate and takes the other end's, and is one end
// of a long TCP transfer. It counts what was lost, doubled and overtaken, exactly, and knows what this machine lost by
// itself: its receive buffer is large, and the socket says what did not fit (SO_RXQ_OVFL).
//
//   meter --local ADDRESS --peer ADDRESS --port N --rate PER_SECOND --bytes N --tcp connect|accept --tcp-rate BYTES_PER_SECOND
//
// Reads commands, a line each, and answers each with a line of JSON: go, report, stop (sends no more), quit.
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_RXQ_OVFL
#define SO_RXQ_OVFL 40
#endif

#define MAGIC 0x4d65746572303031u
#define MOST (1u << 22)      // datagrams of a run
#define BUFFER (64 << 20)    // receive buffer: minutes of what is measured
#define BATCH 64
#define DATAGRAM 2048
#define RANGES 16

struct payload {
  uint64_t magic;
  uint64_t number;
};

static struct {
  struct sockaddr_storage local, peer;
  socklen_t length;
  unsigned rate, bytes;
  bool tcp_connects;
  uint64_t tcp_rate;
} options = {.rate = 1000, .bytes = 200, .tcp_rate = 1 << 20};

static int udp;
static atomic_bool going, stopping;

// The sender's.
static _Atomic uint64_t sent, send_failures, send_gap_ns;
static _Atomic int last_send_error;

// The receiver's, under the lock.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t seen[MOST];
static uint64_t received, doubled, overtaken, deepest, highest, first_ns, last_ns, gap_ns, gap_before, overflow, foreign;
static bool any;

// TCP.
static _Atomic uint64_t tcp_bytes, tcp_gap_ns;
static _Atomic int tcp_state; // 0 nothing yet, 1 open, 2 ended well, 3 broken
static char tcp_failure[96];
static _Atomic uint32_t tcp_retransmits;

static uint64_t monotonic(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns) {
  struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
  }
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void raise_to(_Atomic uint64_t *most, uint64_t value) {
  if (value > atomic_load(most)) atomic_store(most, value);
}

// Late is caught up with at once, so that the rate holds; a datagram that the kernel refuses is tried again and never counts
// as sent before it is.
static void *send_all(void *unused) {
  uint8_t datagram[DATAGRAM] = {0};
  uint64_t interval = 1000000000u / options.rate, next = 0, last = 0;
  (void)unused;
  while (!atomic_load(&stopping)) {
    if (!atomic_load(&going)) {
      usleep(200);
      continue;
    }
    uint64_t now = monotonic();
    if (next == 0) next = now;
    if (now < next) {
      sleep_until(next);
      continue;
    }
    uint64_t number = atomic_load(&sent);
    if (number == MOST) break;
    struct payload payload = {MAGIC, number};
    memcpy(datagram, &payload, sizeof payload);
    if (sendto(udp, datagram, options.bytes, 0, (struct sockaddr *)&options.peer, options.length) < 0) {
      // An ICMP error about an earlier datagram comes out here too: this one was not sent.
      atomic_store(&last_send_error, errno);
      atomic_fetch_add(&send_failures, 1);
      if (errno == EAGAIN || errno == ENOBUFS) usleep(500);
      continue;
    }
    if (last != 0) raise_to(&send_gap_ns, now - last);
    last = now;
    atomic_store(&sent, number + 1);
    next += interval;
  }
  return NULL;
}

static void take(const uint8_t *datagram, size_t length, uint64_t stamp) {
  struct payload payload;
  if (length < sizeof payload) {
    foreign++;
    return;
  }
  memcpy(&payload, datagram, sizeof payload);
  if (payload.magic != MAGIC || payload.number >= MOST) {
    foreign++;
    return;
  }
  if (seen[payload.number]) {
    doubled++;
    return;
  }
  seen[payload.number] = 1;
  received++;
  if (!any) first_ns = stamp;
  if (any && stamp > last_ns && stamp - last_ns > gap_ns) {
    gap_ns = stamp - last_ns;
    gap_before = payload.number;
  }
  if (!any || stamp > last_ns) last_ns = stamp;
  if (any && payload.number < highest) {
    overtaken++;
    if (highest - payload.number > deepest) deepest = highest - payload.number;
  } else {
    highest = payload.number;
  }
  any = true;
}

static void *receive_all(void *unused) {
  static uint8_t datagrams[BATCH][DATAGRAM];
  static uint8_t controls[BATCH][256];
  struct mmsghdr headers[BATCH];
  struct iovec vectors[BATCH];
  (void)unused;
  for (;;) {
    for (int i = 0; i < BATCH; i++) {
      vectors[i] = (struct iovec){datagrams[i], DATAGRAM};
      headers[i].msg_hdr = (struct msghdr){
          .msg_iov = &vectors[i], .msg_iovlen = 1, .msg_control = controls[i], .msg_controllen = sizeof controls[i]};
    }
    int count = recvmmsg(udp, headers, BATCH, MSG_WAITFORONE, NULL);
    if (count < 0) {
      if (errno == EBADF) return NULL;
      continue; // an ICMP error about what was sent
    }
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) {
      uint64_t stamp = 0;
      struct msghdr *header = &headers[i].msg_hdr;
      for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET) continue;
        if (c->cmsg_type == SO_TIMESTAMPNS) {
          struct timespec t;
          memcpy(&t, CMSG_DATA(c), sizeof t);
          stamp = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        } else if (c->cmsg_type == SO_RXQ_OVFL) {
          uint32_t drops;
          memcpy(&drops, CMSG_DATA(c), sizeof drops);
          overflow = drops;
        }
      }
      take(datagrams[i], headers[i].msg_len, stamp);
    }
    pthread_mutex_unlock(&lock);
  }
}

static void tcp_broken(const char *what) {
  snprintf(tcp_failure, sizeof tcp_failure, "%s: %s", what, strerror(errno));
  atomic_store(&tcp_state, 3);
}

static void note_retransmits(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0) atomic_store(&tcp_retransmits, info.tcpi_total_retrans);
}

// The stream is the numbers 0, 1, 2 … of eight bytes each: nothing can be missing, doubled or misplaced unseen.
static void *tcp_send(void *unused) {
  static uint64_t words[2048];
  (void)unused;
  while (!atomic_load(&going)) usleep(200);
  int fd = socket(options.peer.ss_family, SOCK_STREAM, 0);
  if (fd < 0) die("socket");
  // Whoever is asked may start later, and the way to it too.
  while (connect(fd, (struct sockaddr *)&options.peer, options.length) < 0) {
    if (atomic_load(&stopping) || (errno != ECONNREFUSED && errno != ETIMEDOUT && errno != EHOSTUNREACH)) {
      tcp_broken("connect");
      return NULL;
    }
    close(fd);
    usleep(20000);
    fd = socket(options.peer.ss_family, SOCK_STREAM, 0);
  }
  atomic_store(&tcp_state, 1);
  uint64_t start = monotonic(), number = 0;
  while (!atomic_load(&stopping)) {
    uint64_t due = start + atomic_load(&tcp_bytes) * 1000000000u / options.tcp_rate;
    if (monotonic() < due) sleep_until(due);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) words[i] = number++;
    const uint8_t *at = (const uint8_t *)words;
    for (size_t rest = sizeof words; rest > 0;) {
      ssize_t n = send(fd, at, rest, MSG_NOSIGNAL);
      if (n < 0) {
        tcp_broken("send");
        return NULL;
      }
      at += n;
      rest -= (size_t)n;
      atomic_fetch_add(&tcp_bytes, (uint64_t)n);
    }
    note_retransmits(fd);
  }
  shutdown(fd, SHUT_WR);
  uint8_t end;
  if (recv(fd, &end, 1, 0) < 0) tcp_broken("close");
  else atomic_store(&tcp_state, 2);
  note_retransmits(fd);
  return NULL;
}

static void *tcp_receive(void *listening) {
  static uint8_t buffer[1 << 16];
  uint64_t number = 0, last = 0;
  size_t kept = 0;
  int fd = accept((int)(intptr_t)listening, NULL, NULL);
  if (fd < 0) die("accept");
  atomic_store(&tcp_state, 1);
  for (;;) {
    ssize_t n = recv(fd, buffer + kept, sizeof buffer - kept, 0);
    if (n < 0) {
      tcp_broken("recv");
      return NULL;
    }
    if (n == 0) break;
    uint64_t now = monotonic();
    if (last != 0) raise_to(&tcp_gap_ns, now - last);
    last = now;
    kept += (size_t)n;
    size_t whole = kept & ~(size_t)7;
    for (size_t at = 0; at < whole; at += 8) {
      uint64_t word;
      memcpy(&word, buffer + at, sizeof word);
      if (word == number++) continue;
      errno = EBADMSG;
      tcp_broken("content");
      return NULL;
    }
    memmove(buffer, buffer + whole, kept - whole);
    kept -= whole;
    atomic_fetch_add(&tcp_bytes, (uint64_t)n);
  }
  close(fd);
  atomic_store(&tcp_state, 2);
  return NULL;
}

// All that has not come up to `end`, in ranges.
static void print_missing(uint64_t end) {
  unsigned ranges = 0;
  printf("\"missing\":[");
  for (uint64_t i = 0; i < end && ranges < RANGES; i++) {
    if (seen[i]) continue;
    uint64_t from = i;
    while (i + 1 < end && !seen[i + 1]) i++;
    printf("%s[%" PRIu64 ",%" PRIu64 "]", ranges++ == 0 ? "" : ",", from, i);
  }
  printf("]");
}

static void report(void) {
  static const char *const states[] = {"none", "open", "ended", "broken"};
  pthread_mutex_lock(&lock);
  printf("{\"sent\":%" PRIu64 ",\"sendFailures\":%" PRIu64 ",\"sendError\":\"%s\",\"sendGapMs\":%.3f,", atomic_load(&sent),
         atomic_load(&send_failures), atomic_load(&last_send_error) == 0 ? "" : strerror(atomic_load(&last_send_error)),
         (double)atomic_load(&send_gap_ns) / 1e6);
  printf("\"received\":%" PRIu64 ",\"doubled\":%" PRIu64 ",\"overtaken\":%" PRIu64 ",\"deepest\":%" PRIu64
         ",\"highest\":%" PRId64 ",\"foreign\":%" PRIu64 ",\"overflow\":%" PRIu64 ",",
         received, doubled, overtaken, deepest, any ? (int64_t)highest : -1, foreign, overflow);
  printf("\"gapMs\":%.3f,\"gapBefore\":%" PRIu64 ",\"lastAt\":%.3f,", (double)gap_ns / 1e6, gap_before,
         (double)last_ns / 1e6);
  print_missing(any ? highest : 0);
  pthread_mutex_unlock(&lock);
  printf(",\"tcp\":{\"state\":\"%s\",\"bytes\":%" PRIu64 ",\"gapMs\":%.3f,\"retransmits\":%" PRIu32 ",\"failure\":\"%s\"}}\n",
         states[atomic_load(&tcp_state)], atomic_load(&tcp_bytes), (double)atomic_load(&tcp_gap_ns) / 1e6,
         atomic_load(&tcp_retransmits), tcp_failure);
  fflush(stdout);
}

static socklen_t parse_address(const char *text, unsigned port, struct sockaddr_storage *to) {
  struct sockaddr_in *in = (struct sockaddr_in *)to;
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    return sizeof *in;
  }
  if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1) {
    fprintf(stderr, "%s is not an address\n", text);
    exit(1);
  }
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons((uint16_t)port);
  return sizeof *in6;
}

static void parse_options(int argc, char **argv) {
  enum { LOCAL, PEER, PORT, RATE, BYTES, TCP, TCP_RATE };
  static const struct option known[] = {
      {"local", required_argument, NULL, LOCAL}, {"peer", required_argument, NULL, PEER},
      {"port", required_argument, NULL, PORT},   {"rate", required_argument, NULL, RATE},
      {"bytes", required_argument, NULL, BYTES}, {"tcp", required_argument, NULL, TCP},
      {"tcp-rate", required_argument, NULL, TCP_RATE}, {0},
  };
  const char *local = "", *peer = "";
  unsigned port = 9;
  for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
    switch (option) {
      case LOCAL: local = optarg; break;
      case PEER: peer = optarg; break;
      case PORT: port = (unsigned)strtoul(optarg, NULL, 10); break;
      case RATE: options.rate = (unsigned)strtoul(optarg, NULL, 10); break;
      case BYTES: options.bytes = (unsigned)strtoul(optarg, NULL, 10); break;
      case TCP: options.tcp_connects = strcmp(optarg, "connect") == 0; break;
      case TCP_RATE: options.tcp_rate = strtoull(optarg, NULL, 10); break;
      default: exit(1);
    }
  }
  if (options.rate == 0 || options.bytes < sizeof(struct payload) || options.bytes > DATAGRAM || options.tcp_rate == 0) {
    fprintf(stderr, "rate, bytes or tcp-rate is out of range\n");
    exit(1);
  }
  parse_address(local, port, &options.local);
  options.length = parse_address(peer, port, &options.peer);
}

static void start(void *(*run)(void *), void *argument) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, argument) != 0) die("pthread_create");
}

int main(int argc, char **argv) {
  int on = 1, buffer = BUFFER;
  parse_options(argc, argv);
  udp = socket(options.local.ss_family, SOCK_DGRAM, 0);
  if (udp < 0) die("socket");
  if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0) die("SO_RCVBUFFORCE");
  if (setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0) die("SO_SNDBUFFORCE");
  if (setsockopt(udp, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0) die("SO_TIMESTAMPNS");
  if (setsockopt(udp, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on) < 0) die("SO_RXQ_OVFL");
  if (bind(udp, (struct sockaddr *)&options.local, options.length) < 0) die("bind");
  if (options.tcp_connects) {
    start(tcp_send, NULL);
  } else {
    int listening = socket(options.local.ss_family, SOCK_STREAM, 0);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&options.local, options.length) < 0 || listen(listening, 1) < 0) die("listen");
    start(tcp_receive, (void *)(intptr_t)listening);
  }
  start(receive_all, NULL);
  start(send_all, NULL);
  report();
  for (char line[64]; fgets(line, sizeof line, stdin) != NULL;) {
    if (strcmp(line, "go\n") == 0) atomic_store(&going, true);
    else if (strcmp(line, "stop\n") == 0) atomic_store(&stopping, true);
    else if (strcmp(line, "quit\n") == 0) break;
    if (strcmp(line, "stop\n") == 0) usleep(20000); // a datagram that is being sent counts
    report();
  }
  _exit(0);
}
