// SPDX-License-Identifier: Apache-2.0
// What one core does for a packet: AES-256-GCM alone, and the engine's whole work but for its system calls. Prints a line
// of JSON for each measurement: { "what", "packets", "bytes" (of an inner packet), "ns" (a packet) }.
//   speed [SAs]      with so many security associations in turn; one by default
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include "../aead.h"
#include "../checksum.h"
#include "../esp.h"
#include "../inet.h"
#include "../test/bed.h"
#include "../test/check.h"
#include "../vault.h"

#define ROUND_NS 200000000u // of a measurement; the best of several rounds counts
#define ROUNDS 5
#define SEGMENT 1352 // TCP payload of a packet of 1,404 bytes
#define SEGMENTS 40
#define SPEED_HEADERS (sizeof(struct virtio_net_hdr) + IP4_HEADER)

_Noreturn void check_failed(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: %s\n", file, line, condition);
  abort();
}

// In the kernel's place (-Wl,--wrap): everything is taken at once.
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
ssize_t __wrap_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size);
ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count);

void sink_clear(void) {}

// What the engine sent last, kept to be received.
static uint8_t wire[UDP_OUT_SLOTS][UDP_SLOT];
static size_t wire_length[UDP_OUT_SLOTS], wire_segment[UDP_OUT_SLOTS];
static unsigned wire_count;
static bool keep;

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  (void)fd, (void)flags;
  for (unsigned i = 0; keep && i < count; i++) {
    const struct iovec *piece = messages[i].msg_hdr.msg_iov;
    uint16_t segment = (uint16_t)piece->iov_len;
    struct cmsghdr *control = CMSG_FIRSTHDR(&messages[i].msg_hdr);
    if (control != NULL) memcpy(&segment, CMSG_DATA(control), sizeof segment);
    CHECK(wire_count < UDP_OUT_SLOTS);
    memcpy(wire[wire_count], piece->iov_base, piece->iov_len);
    wire_segment[wire_count] = segment;
    wire_length[wire_count++] = piece->iov_len;
  }
  return (int)count;
}

ssize_t __wrap_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
  (void)fd, (void)data, (void)flags, (void)to, (void)size;
  return (ssize_t)length;
}

ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count) {
  (void)fd;
  ssize_t length = 0;
  for (int i = 0; i < count; i++) length += (ssize_t)pieces[i].iov_len;
  return length;
}

// Of this thread's processor time: what else the machine does is no part of it.
static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Calls `once`, which does `packets` packets, until a round is over; prints the best round.
static void measure(const char *what, unsigned packets, size_t bytes, void (*once)(void *), void *context) {
  double best = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t start = now_ns(), spent, done = 0;
    do {
      for (int i = 0; i < 64; i++, done += packets) once(context);
      spent = now_ns() - start;
    } while (spent < ROUND_NS);
    if ((double)spent / (double)done < best) best = (double)spent / (double)done;
  }
  printf("{\"what\":\"%s\",\"aead\":\"%s\",\"bytes\":%zu,\"ns\":%.1f}\n", what, aead->name, bytes, best);
}

struct raw {
  void *handle;
  size_t length;
  uint8_t *data; // SEGMENTS packets, because a buffer that stays in the first cache is not what an engine has
};

static void seal_raw(void *context) {
  struct raw *r = context;
  uint8_t nonce[AEAD_NONCE] = {0}, aad[12] = {0}, tag[AEAD_TAG];
  for (size_t i = 0; i < SEGMENTS; i++) {
    nonce[11]++;
    aead->seal(r->handle, nonce, aad, sizeof aad, r->data + i * r->length, r->length, tag);
  }
}

static void open_raw(void *context) {
  struct raw *r = context;
  uint8_t nonce[AEAD_NONCE] = {0}, aad[12] = {0}, tag[AEAD_TAG] = {0};
  for (size_t i = 0; i < SEGMENTS; i++)
    if (aead->open(r->handle, nonce, aad, sizeof aad, r->data + i * r->length, r->length, tag)) abort();
}

static void measure_aead(size_t length) {
  const uint8_t key[AEAD_KEY] = {1};
  struct raw raw = {.length = length, .data = calloc(SEGMENTS, length)};
  raw.handle = aead->create(key, true);
  measure("seal, AEAD alone", SEGMENTS, length, seal_raw, &raw);
  aead->destroy(raw.handle);
  raw.handle = aead->create(key, false);
  measure("open, AEAD alone", SEGMENTS, length, open_raw, &raw);
  aead->destroy(raw.handle);
  free(raw.data);
}

// A packet as the TUN device gives it, and the engine it is for.
struct flow {
  struct engine *engine;
  uint8_t frame[70000];
  size_t length;
  unsigned sas, next; // in turn
};

static void address(struct flow *f) {
  // The last bytes of both inner addresses say which of the SAs.
  uint8_t *ip = f->frame + sizeof(struct virtio_net_hdr);
  store_be16(ip + IP4_SOURCE + 2, (uint16_t)(f->next & 0xff));
  store_be16(ip + IP4_DESTINATION + 2, (uint16_t)(f->next >> 8));
  f->next = f->next + 1 == f->sas ? 0 : f->next + 1;
  if (ip[IP4_PROTOCOL] != PROTOCOL_UDP) return;
  uint16_t partial = checksum_fold(checksum_pseudo(ip + IP4_SOURCE, 8, PROTOCOL_UDP, f->length - SPEED_HEADERS));
  memcpy(ip + IP4_HEADER + UDP_CHECKSUM, &partial, sizeof partial);
}

static void transmit(void *context) {
  struct flow *f = context;
  address(f);
  outbound_packet(f->engine->outbound, f->frame, f->length);
  udp_out_flush(&f->engine->outbound->udp);
}

static void receive(void *context) {
  static const struct underlay from = {{{0, 0x010200c0ffff0000}}, 4500};
  static uint8_t copy[UDP_SLOT];
  struct flow *f = context;
  keep = true;
  wire_count = 0;
  transmit(f);
  keep = false;
  for (unsigned i = 0; i < wire_count; i++) {
    memcpy(copy, wire[i], wire_length[i]);
    for (size_t at = 0; at < wire_length[i]; at += wire_segment[i]) {
      size_t rest = wire_length[i] - at;
      inbound_datagram(f->engine->inbound, copy + at, rest < wire_segment[i] ? rest : wire_segment[i], &from);
    }
  }
  inbound_flush(f->engine->inbound);
}

static void install(struct engine *e, unsigned i, uint8_t direction) {
  uint8_t key[36] = {(uint8_t)i, (uint8_t)(i >> 8)};
  const uint8_t local[4] = {10, 1, 0, (uint8_t)i}, remote[4] = {10, 2, 0, (uint8_t)(i >> 8)};
  struct pair pair = {addr_from_ip4(local), addr_from_ip4(remote)};
  if (direction == DIRECTION_IN) pair = (struct pair){pair.remote, pair.local};
  struct sa_parameters parameters = {
      .direction = direction,
      .spi = 256 + i,
      .pair_count = 1,
      .pairs = {pair},
      .limits = {SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT, SA_NO_LIMIT},
      .replay_window = 4096,
      .key = key,
      .salt = key + 32,
      .note = "",
  };
  struct peer *peer = vault_alloc(sizeof *peer);
  const uint8_t there[4] = {192, 0, 2, 1};
  CHECK(peer != NULL && udp_peer_address(peer, (struct underlay){addr_from_ip4(there), 4500}, false));
  struct sa *sa = sa_create(&parameters, peer);
  CHECK(sa != NULL);
  table_insert(&e->table, sa);
}

static void measure_engine(unsigned sas) {
  static struct flow flow;
  struct engine *e = bed_engine();
  flow = (struct flow){.engine = e, .sas = sas};
  for (unsigned i = 0; i < sas; i++) {
    install(e, i, DIRECTION_OUT);
    install(e, i, DIRECTION_IN);
  }
  const struct bed_packet tcp = {.version = 4, .protocol = PROTOCOL_TCP, .flags = TCP_ACK, .payload = SEGMENTS * SEGMENT,
                                 .options = 12};
  struct virtio_net_hdr header = {0};
  uint8_t *packet = flow.frame + sizeof header;
  size_t length = bed_build(packet, &tcp);
  header = bed_gso(packet, length, SEGMENT);
  memcpy(flow.frame, &header, sizeof header);
  flow.length = sizeof header + length;
  measure("send, super-packets", SEGMENTS, SEGMENT + 52, transmit, &flow);
  measure("send and receive, super-packets", SEGMENTS, SEGMENT + 52, receive, &flow);
  const struct bed_packet udp = {.version = 4, .protocol = PROTOCOL_UDP, .payload = 1372};
  header = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = IP4_HEADER, .csum_offset = UDP_CHECKSUM};
  flow.length = sizeof header + bed_build(packet, &udp);
  memcpy(flow.frame, &header, sizeof header);
  measure("send, one by one", 1, 1400, transmit, &flow);
  measure("send and receive, one by one", 1, 1400, receive, &flow);
  struct counters *in = &e->workers[WORKER_INBOUND].counters, *out = &e->workers[WORKER_OUTBOUND].counters;
  for (unsigned i = 0; i < DROP_COUNT; i++) CHECK(in->drops[i] == 0 && out->drops[i] == 0);
}

int main(int argc, char **argv) {
  unsigned sas = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
  if (!vault_adopt_libcrypto() || !aead_select("auto") || sas < 1 || sas > 65536) return 1;
  if (sas == 1) {
    measure_aead(SEGMENT + 52);
    measure_aead(64);
    measure_aead(8900);
  }
  measure_engine(sas);
  return 0;
}
