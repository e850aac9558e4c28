// SPDX-License-Identifier: Apache-2.0
#include "segment.h"

#include "checksum.h"
#include "inet.h"

// Multicast, broadcast, loopback, link-local, unspecified: nothing that a pod pair's tunnel could be for. The kernel
// itself emits such packets on a device that is up (router solicitations, MLD).
static bool not_unicast4(const uint8_t *a) {
  return a[0] == 0 || a[0] == 127 || a[0] >= 224 || (a[0] == 169 && a[1] == 254);
}

static bool not_unicast6(const uint8_t *a) {
  static const uint8_t zeros[15];
  return a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) || (memcmp(a, zeros, sizeof zeros) == 0 && a[15] <= 1);
}

static enum drop parse_ip(struct super *s, const uint8_t *p, size_t length) {
  if (length < IP4_HEADER) return DROP_TUN_MALFORMED;
  s->packet = p;
  s->version = p[0] >> 4;
  size_t said;
  if (s->version == 4) {
    s->header = (uint32_t)(p[0] & 15) * 4;
    said = load_be16(p + IP4_TOTAL_LENGTH);
    if (s->header < IP4_HEADER || said < s->header) return DROP_TUN_MALFORMED;
    s->pair = (struct pair){.local = addr_from_ip4(p + IP4_SOURCE), .remote = addr_from_ip4(p + IP4_DESTINATION)};
    if (not_unicast4(p + IP4_SOURCE) || not_unicast4(p + IP4_DESTINATION)) return DROP_TUN_NOT_UNICAST;
  } else if (s->version == 6) {
    if (length < IP6_HEADER) return DROP_TUN_MALFORMED;
    s->header = IP6_HEADER;
    said = (size_t)IP6_HEADER + load_be16(p + IP6_PAYLOAD_LENGTH);
    s->pair = (struct pair){.local = addr_from_ip6(p + IP6_SOURCE), .remote = addr_from_ip6(p + IP6_DESTINATION)};
    if (not_unicast6(p + IP6_SOURCE) || not_unicast6(p + IP6_DESTINATION)) return DROP_TUN_NOT_UNICAST;
  } else {
    return DROP_TUN_MALFORMED;
  }
  if (said > length) return DROP_TUN_MALFORMED;
  s->length = (uint32_t)said; // Ethernet's padding may follow in what a pod's interface took in
  return DROP_NONE;
}

// Where the transport header is, which both segmentation and the checksum need.
static bool parse_transport(struct super *s, const struct virtio_net_hdr *request) {
  s->transport = request->csum_start;
  s->checksum_field = request->csum_offset;
  return s->transport >= s->header && (uint32_t)s->transport + s->checksum_field + 2 <= s->length;
}

static enum drop parse_gso(struct super *s) {
  uint32_t header;
  bool matches;
  switch (s->gso) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
      matches = s->version == (s->gso == VIRTIO_NET_HDR_GSO_TCPV4 ? 4 : 6) && s->checksum_field == TCP_CHECKSUM;
      if (!matches || (uint32_t)s->transport + TCP_HEADER > s->length) return DROP_TUN_OFFLOAD;
      header = (uint32_t)(s->packet[s->transport + TCP_DATA_OFFSET] >> 4) * 4;
      if (header < TCP_HEADER) return DROP_TUN_OFFLOAD;
      break;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      if (s->checksum_field != UDP_CHECKSUM) return DROP_TUN_OFFLOAD;
      header = UDP_HEADER;
      break;
    default:
      return DROP_TUN_OFFLOAD;
  }
  s->header = s->transport + header;
  if (s->header >= s->length || s->payload == 0) return DROP_TUN_OFFLOAD;
  s->count = (s->length - s->header + s->payload - 1) / s->payload;
  return DROP_NONE;
}

enum drop segment_parse(struct super *s, const struct virtio_net_hdr *request, const uint8_t *packet, size_t length) {
  enum drop drop = parse_ip(s, packet, length);
  if (drop != DROP_NONE) return drop;
  s->gso = request->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
  s->checksum = (request->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
  s->payload = request->gso_size;
  s->count = 1;
  if (s->checksum && !parse_transport(s, request)) return DROP_TUN_OFFLOAD;
  if (s->gso == VIRTIO_NET_HDR_GSO_NONE) return DROP_NONE;
  // The kernel never asks to segment without asking for the checksums as well.
  return s->checksum ? parse_gso(s) : DROP_TUN_OFFLOAD;
}

// A packet as it is, with its transport checksum completed: the field already holds the pseudo-header's sum.
static uint32_t write_whole(const struct super *s, uint8_t *to) {
  if (!s->checksum) {
    memcpy(to, s->packet, s->length);
    return s->length;
  }
  memcpy(to, s->packet, s->transport);
  uint64_t sum = checksum_copy(to + s->transport, s->packet + s->transport, s->length - s->transport, 0);
  uint16_t checksum = (uint16_t)~checksum_fold(sum);
  if (checksum == 0) checksum = 0xffff; // zero would mean "none" to UDP, and the two are equal to everyone else
  memcpy(to + s->transport + s->checksum_field, &checksum, sizeof checksum);
  return s->length;
}

static void mend_ip(const struct super *s, uint32_t index, uint8_t *to, uint32_t length) {
  if (s->version == 6) {
    store_be16(to + IP6_PAYLOAD_LENGTH, (uint16_t)(length - IP6_HEADER));
    return;
  }
  store_be16(to + IP4_TOTAL_LENGTH, (uint16_t)length);
  store_be16(to + IP4_ID, (uint16_t)(load_be16(to + IP4_ID) + index));
  memset(to + IP4_CHECKSUM, 0, 2);
  uint16_t checksum = (uint16_t)~checksum_fold(checksum_header(to, (size_t)(to[0] & 15) * 4, 0));
  memcpy(to + IP4_CHECKSUM, &checksum, sizeof checksum);
}

static void mend_tcp(const struct super *s, uint32_t index, uint8_t *tcp) {
  store_be32(tcp + TCP_SEQUENCE, load_be32(tcp + TCP_SEQUENCE) + index * s->payload);
  if (index + 1 < s->count) tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH); // the end is said once, by the last
  if (index > 0) tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;                         // and this once, by the first (RFC 3168)
}

uint32_t segment_write(const struct super *s, uint32_t index, uint8_t *to) {
  if (s->gso == VIRTIO_NET_HDR_GSO_NONE) return write_whole(s, to);
  uint32_t length = segment_length(s, index), payload = length - s->header;
  memcpy(to, s->packet, s->header);
  mend_ip(s, index, to, length);

  uint8_t *transport = to + s->transport;
  uint8_t protocol = PROTOCOL_TCP;
  if (s->gso == VIRTIO_NET_HDR_GSO_UDP_L4) {
    protocol = PROTOCOL_UDP;
    store_be16(transport + UDP_LENGTH, (uint16_t)(length - s->transport));
  } else {
    mend_tcp(s, index, transport);
  }
  memset(transport + s->checksum_field, 0, 2);
  uint64_t sum = s->version == 4 ? checksum_pseudo(to + IP4_SOURCE, 8, protocol, length - s->transport)
                                 : checksum_pseudo(to + IP6_SOURCE, 32, protocol, length - s->transport);
  sum = checksum_header(transport, s->header - s->transport, sum);
  sum = checksum_copy(to + s->header, s->packet + s->header + (size_t)index * s->payload, payload, sum);
  uint16_t checksum = (uint16_t)~checksum_fold(sum);
  if (checksum == 0 && protocol == PROTOCOL_UDP) checksum = 0xffff; // RFC 768: zero means "none"
  memcpy(transport + s->checksum_field, &checksum, sizeof checksum);
  return length;
}
