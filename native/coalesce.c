// SPDX-License-Identifier: Apache-2.0
#include "coalesce.h"

#include "checksum.h"
#include "inet.h"

#define IP_MAX 65535

// What coalescing needs to know of one packet.
struct view {
  uint8_t *packet;
  uint32_t length;
  uint8_t version;
  uint8_t protocol;
  uint16_t transport; // 0: a fragment, options, or a protocol without bundles; belongs to no flow here
  uint16_t header;
  uint8_t gso; // what a bundle that starts with it would be; NONE when it must travel alone
};

static uint64_t pseudo(const struct view *v) {
  size_t transport_length = v->length - v->transport;
  return v->version == 4 ? checksum_pseudo(v->packet + IP4_SOURCE, 8, v->protocol, transport_length)
                         : checksum_pseudo(v->packet + IP6_SOURCE, 32, v->protocol, transport_length);
}

// A wrong checksum has to arrive as wrong as it is: a super-packet's is taken for right.
static bool checksum_right(const struct view *v) {
  return checksum_fold(checksum_add(v->packet + v->transport, v->length - v->transport, pseudo(v))) == 0xffff;
}

static void view_tcp(struct view *v) {
  uint8_t *tcp = v->packet + v->transport;
  uint32_t header = v->transport + (uint32_t)(tcp[TCP_DATA_OFFSET] >> 4) * 4;
  if (header < (uint32_t)v->transport + TCP_HEADER || header >= v->length) return; // malformed, or no payload
  v->header = (uint16_t)header;
  if ((tcp[TCP_FLAGS] & ~TCP_PSH) != TCP_ACK || !checksum_right(v)) return;
  v->gso = v->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
}

static void view_udp(struct view *v) {
  uint8_t *udp = v->packet + v->transport;
  if (v->length == (uint32_t)v->transport + UDP_HEADER) return;
  v->header = (uint16_t)(v->transport + UDP_HEADER);
  if (load_be16(udp + UDP_LENGTH) != v->length - v->transport) return;
  if ((udp[UDP_CHECKSUM] | udp[UDP_CHECKSUM + 1]) == 0 || !checksum_right(v)) return;
  v->gso = VIRTIO_NET_HDR_GSO_UDP_L4;
}

static void view_packet(struct view *v, uint8_t *p, size_t length, bool udp) {
  *v = (struct view){.packet = p, .length = (uint32_t)length, .version = p[0] >> 4, .gso = VIRTIO_NET_HDR_GSO_NONE};
  if (v->version == 4) {
    if (p[0] != 0x45 || (load_be16(p + IP4_FRAGMENT) & IP4_FRAGMENT_BITS) != 0) return;
    v->protocol = p[IP4_PROTOCOL];
    v->transport = IP4_HEADER;
  } else {
    v->protocol = p[IP6_NEXT_HEADER];
    v->transport = IP6_HEADER;
  }
  if (v->protocol == PROTOCOL_TCP && v->length >= (uint32_t)v->transport + TCP_HEADER)
    view_tcp(v);
  else if (v->protocol == PROTOCOL_UDP && v->length >= (uint32_t)v->transport + UDP_HEADER && udp)
    view_udp(v);
  else
    v->transport = 0;
}

// Both are of one flow: addresses, protocol, ports.
static bool same_flow(const struct bundle *b, const struct view *v) {
  if (b->transport != v->transport || b->head[0] >> 4 != v->version) return false;
  if (memcmp(b->head + b->transport, v->packet + v->transport, 4) != 0) return false;
  if (v->version == 4)
    return b->head[IP4_PROTOCOL] == v->protocol && memcmp(b->head + IP4_SOURCE, v->packet + IP4_SOURCE, 8) == 0;
  return b->head[IP6_NEXT_HEADER] == v->protocol && memcmp(b->head + IP6_SOURCE, v->packet + IP6_SOURCE, 32) == 0;
}

// Everything of the IP header that a super-packet has only once is equal. RFC 6864: identifications of packets with
// don't-fragment mean nothing; others must be those that segmentation would give.
static bool same_ip(const struct bundle *b, const struct view *v) {
  const uint8_t *head = b->head, *p = v->packet;
  if (v->version == 6) return memcmp(head, p, 4) == 0 && head[7] == p[7];
  if (head[1] != p[1] || head[8] != p[8] || memcmp(head + IP4_FRAGMENT, p + IP4_FRAGMENT, 2) != 0) return false;
  return (load_be16(p + IP4_FRAGMENT) & IP4_DONT_FRAGMENT) != 0 ||
         load_be16(p + IP4_ID) == (uint16_t)(b->last_id + 1);
}

static bool same_tcp(const struct bundle *b, const struct view *v) {
  const uint8_t *head = b->head + b->transport, *tcp = v->packet + v->transport;
  return load_be32(tcp + TCP_SEQUENCE) == b->next_sequence && b->header == v->header &&
         memcmp(head + TCP_ACKNOWLEDGEMENT, tcp + TCP_ACKNOWLEDGEMENT, 5) == 0 && // up to the data offset
         memcmp(head + TCP_WINDOW, tcp + TCP_WINDOW, 2) == 0 &&
         memcmp(head + TCP_HEADER, tcp + TCP_HEADER, (size_t)(v->header - v->transport - TCP_HEADER)) == 0;
}

static bool joins(const struct bundle *b, const struct view *v) {
  uint32_t payload = v->length - v->header;
  return v->gso == b->gso && payload <= b->segment && b->count < COALESCE_SEGMENTS && b->length + payload <= IP_MAX &&
         same_ip(b, v) && (v->protocol == PROTOCOL_UDP || same_tcp(b, v));
}

static bool pushes(const struct view *v) {
  return v->protocol == PROTOCOL_TCP && (v->packet[v->transport + TCP_FLAGS] & TCP_PSH) != 0;
}

static void join(struct bundle *b, const struct view *v) {
  uint32_t payload = v->length - v->header;
  b->pieces[++b->count] = (struct iovec){v->packet + v->header, payload};
  b->length += payload;
  b->next_sequence += payload;
  if (v->version == 4) b->last_id = load_be16(v->packet + IP4_ID);
  if (pushes(v)) b->head[b->transport + TCP_FLAGS] |= TCP_PSH;
  // A short segment can only be the last, and what the sender pushed should not wait.
  b->open = payload == b->segment && !pushes(v);
}

static void start(struct bundle *b, const struct view *v) {
  b->head = v->packet;
  b->transport = v->transport;
  b->header = v->header;
  b->gso = v->gso;
  b->open = v->gso != VIRTIO_NET_HDR_GSO_NONE && !pushes(v);
  b->segment = (uint16_t)(v->length - v->header);
  b->length = v->length;
  b->count = 1;
  b->pieces[1] = (struct iovec){v->packet, v->length};
  if (!b->open) return;
  if (v->protocol == PROTOCOL_TCP) b->next_sequence = load_be32(v->packet + v->transport + TCP_SEQUENCE) + b->segment;
  if (v->version == 4) b->last_id = load_be16(v->packet + IP4_ID);
}

bool coalesce_add(struct coalescer *c, uint8_t *packet, size_t length) {
  struct view v;
  view_packet(&v, packet, length, c->udp);
  if (v.transport != 0) {
    for (unsigned i = c->count; i-- > 0;) {
      struct bundle *b = &c->bundles[i];
      if (!b->open || !same_flow(b, &v)) continue;
      if (joins(b, &v)) {
        join(b, &v);
        return true;
      }
      b->open = false; // what follows may not overtake this packet
      break;
    }
  }
  if (c->count == COALESCE_BUNDLES) return false;
  start(&c->bundles[c->count++], &v);
  return true;
}

void coalesce_finish(struct bundle *b) {
  b->virtio = (struct virtio_net_hdr){.gso_type = VIRTIO_NET_HDR_GSO_NONE};
  b->pieces[0] = (struct iovec){&b->virtio, sizeof b->virtio};
  if (b->count == 1) return;
  uint8_t *head = b->head, *transport = head + b->transport;
  size_t transport_length = b->length - b->transport;
  uint64_t sum;
  uint8_t protocol = b->gso == VIRTIO_NET_HDR_GSO_UDP_L4 ? PROTOCOL_UDP : PROTOCOL_TCP;
  if (head[0] >> 4 == 4) {
    store_be16(head + IP4_TOTAL_LENGTH, (uint16_t)b->length);
    memset(head + IP4_CHECKSUM, 0, 2);
    uint16_t checksum = (uint16_t)~checksum_fold(checksum_header(head, IP4_HEADER, 0));
    memcpy(head + IP4_CHECKSUM, &checksum, sizeof checksum);
    sum = checksum_pseudo(head + IP4_SOURCE, 8, protocol, transport_length);
  } else {
    store_be16(head + IP6_PAYLOAD_LENGTH, (uint16_t)(b->length - IP6_HEADER));
    sum = checksum_pseudo(head + IP6_SOURCE, 32, protocol, transport_length);
  }
  if (protocol == PROTOCOL_UDP) store_be16(transport + UDP_LENGTH, (uint16_t)transport_length);
  // The checksum is left to the kernel, which wants to find the pseudo-header's sum in its field.
  uint16_t partial = checksum_fold(sum), field = protocol == PROTOCOL_UDP ? UDP_CHECKSUM : TCP_CHECKSUM;
  memcpy(transport + field, &partial, sizeof partial);
  b->virtio.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  b->virtio.gso_type = b->gso;
  b->virtio.gso_size = b->segment;
  b->virtio.hdr_len = b->header;
  b->virtio.csum_start = b->transport;
  b->virtio.csum_offset = field;
}
