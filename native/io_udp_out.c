// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <netinet/udp.h>
#include <sys/mman.h>

#include "io_udp.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

// Sent early once this much waits: the receiver can begin, and the buffers stay in the cache.
#define FLUSH_BYTES 32768

bool udp_out_init(struct udp_out *out, int fd, struct worker *worker) {
  memset(out, 0, sizeof *out);
  out->fd = fd;
  out->worker = worker;
  out->slots = mmap(NULL, (size_t)UDP_OUT_SLOTS * UDP_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return out->slots != MAP_FAILED;
}

static bool same_peer(const struct peer *a, const struct peer *b) {
  return a == b || (a->length == b->length && memcmp(&a->address, &b->address, a->length) == 0);
}

static bool fits(const struct udp_message *m, uint8_t tos, uint32_t length) {
  return !m->closed && m->tos == tos && length <= m->segment && m->count < UDP_MAX_SEGMENTS &&
         m->used + length <= UDP_MAX_PAYLOAD;
}

// The newest message to that thread of that peer, if the packet may still become part of it.
static struct udp_message *joinable(struct udp_out *out, const struct peer *peer, uint32_t length) {
  for (unsigned i = out->count; i-- > 0;) {
    struct udp_message *m = &out->messages[i];
    if (m->lane == out->lane && same_peer(m->peer, peer)) return fits(m, out->tos, length) ? m : NULL;
  }
  return NULL;
}

uint8_t *udp_out_reserve(struct udp_out *out, const struct peer *peer, uint32_t length) {
  struct udp_message *m = joinable(out, peer, length);
  if (m == NULL) {
    if (out->count == UDP_OUT_SLOTS || out->pending >= FLUSH_BYTES) udp_out_flush(out);
    m = &out->messages[out->count++];
    *m = (struct udp_message){.peer = peer, .segment = (uint16_t)length, .tos = out->tos, .lane = out->lane};
  }
  uint8_t *room = out->slots + (size_t)(m - out->messages) * UDP_SLOT + m->used;
  m->used += length;
  m->count++;
  m->closed = length < m->segment;
  out->pending += length;
  return room;
}

// Control data of one message: the size of its segments, and its TOS or traffic class.
union control {
  struct cmsghdr header;
  uint8_t bytes[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(int))];
};

static void add_control(struct msghdr *header, union control *control, int level, int type, const void *value,
                        size_t length) {
  struct cmsghdr *to = (struct cmsghdr *)(control->bytes + header->msg_controllen);
  memset(to, 0, CMSG_SPACE(length));
  *to = (struct cmsghdr){.cmsg_len = CMSG_LEN(length), .cmsg_level = level, .cmsg_type = type};
  memcpy(CMSG_DATA(to), value, length);
  header->msg_control = control->bytes;
  header->msg_controllen += CMSG_SPACE(length);
}

// The header that is really there decides: an IPv4 peer of an IPv6 socket is reached by IPv4.
static void add_tos(struct msghdr *header, union control *control, const struct peer *peer, int tos) {
  bool ip4 = addr_is_ip4(peer->underlay.address);
  add_control(header, control, ip4 ? IPPROTO_IP : IPPROTO_IPV6, ip4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof tos);
}

static void describe(struct msghdr *header, struct iovec *vector, union control *control, const struct udp_message *m,
                     uint8_t *data) {
  *vector = (struct iovec){data, m->used};
  *header = (struct msghdr){
      .msg_name = (void *)&m->peer->address.any,
      .msg_namelen = m->peer->length,
      .msg_iov = vector,
      .msg_iovlen = 1,
  };
  if (m->count > 1) add_control(header, control, IPPROTO_UDP, UDP_SEGMENT, &m->segment, sizeof m->segment);
  if (m->tos != 0) add_tos(header, control, m->peer, m->tos);
}

static void count_refused(struct udp_out *out, int error, uint64_t packets, const struct peer *peer) {
  enum drop reason = error == EMSGSIZE ? DROP_TOO_BIG : DROP_UDP_SEND;
  worker_drop(out->worker, reason, packets, &(struct dropped){.from = &peer->underlay});
}

// A message that the kernel refused as a whole: most likely segments do not fit the path. Each packet gets its chance.
static void send_singly(struct udp_out *out, const struct udp_message *m, uint8_t *data) {
  COUNT(out->worker->counters.udp_resent_singly, 1);
  for (uint32_t at = 0; at < m->used; at += m->segment) {
    uint32_t rest = m->used - at, length = rest < m->segment ? rest : m->segment;
    COUNT(out->worker->counters.udp_send_calls, 1);
    struct udp_message single = {.peer = m->peer, .used = length, .count = 1, .tos = m->tos};
    struct mmsghdr header;
    struct iovec vector;
    union control control;
    describe(&header.msg_hdr, &vector, &control, &single, data + at);
    int sent;
    do {
      sent = sendmmsg(out->fd, &header, 1, 0);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) count_refused(out, errno, 1, m->peer);
  }
}

void udp_out_flush(struct udp_out *out) {
  struct mmsghdr headers[UDP_OUT_SLOTS];
  struct iovec vectors[UDP_OUT_SLOTS];
  union control controls[UDP_OUT_SLOTS];
  unsigned count = out->count, sent = 0;
  for (unsigned i = 0; i < count; i++)
    describe(&headers[i].msg_hdr, &vectors[i], &controls[i], &out->messages[i], out->slots + (size_t)i * UDP_SLOT);
  while (sent < count) {
    COUNT(out->worker->counters.udp_send_calls, 1);
    int n = sendmmsg(out->fd, headers + sent, count - sent, 0);
    if (n > 0) {
      COUNT(out->worker->counters.udp_messages_sent, (uint64_t)n);
      sent += (unsigned)n;
      continue;
    }
    if (errno == EINTR) continue;
    const struct udp_message *m = &out->messages[sent];
    if (m->count > 1)
      send_singly(out, m, out->slots + (size_t)sent * UDP_SLOT);
    else
      count_refused(out, errno, 1, m->peer);
    sent++;
  }
  out->count = 0;
  out->pending = 0;
}
