// SPDX-License-Identifier: Apache-2.0
#include "mtu.h"

#include "checksum.h"
#include "esp.h"
#include "inet.h"

#define TCP_SYN 0x02
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_MSS 2

#define ICMP 1
#define ICMP_HEADER 8
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMPV6 58
#define ICMPV6_TOO_BIG 2
#define IP4_QUOTE 548 // RFC 1812 section 4.3.2.3: all of it at most 576 bytes
#define IP4_MORE 0x2000
#define IP4_OFFSET 0x1fff

uint16_t mtu_inner(uint32_t mtu, bool outer_ip4) {
  uint32_t outer = (outer_ip4 ? IP4_HEADER : IP6_HEADER) + UDP_HEADER;
  if (mtu <= outer + SA_HEADER + ESP_ICV + 4) return 0;
  uint32_t inner = ((mtu - outer - SA_HEADER - ESP_ICV) & ~3u) - 2; // padded to four with its two bytes of trailer
  return (uint16_t)(inner < MTU_NO_LIMIT ? inner : MTU_NO_LIMIT);
}

static void store_sum(uint8_t *to, uint64_t sum) {
  uint16_t checksum = (uint16_t)~checksum_fold(sum);
  memcpy(to, &checksum, sizeof checksum);
}

// A 16-bit field of a TCP segment changes, at whichever offset (RFC 1624 section 3, equation 3).
static void replace16(uint8_t *tcp, size_t at, uint16_t value) {
  uint16_t old = load_be16(tcp + at);
  store_be16(tcp + at, value);
  if (at % 2 != 0) { // the checksum's words begin at even offsets: there it is bytes of two of them
    old = __builtin_bswap16(old);
    value = __builtin_bswap16(value);
  }
  uint32_t sum = (uint16_t)~load_be16(tcp + TCP_CHECKSUM) + (uint32_t)(uint16_t)~old + value;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  store_be16(tcp + TCP_CHECKSUM, (uint16_t)~sum);
}

void mtu_clamp_mss(uint8_t *packet, size_t length, uint32_t most) {
  size_t header;
  if (packet[0] >> 4 == 4) {
    header = (size_t)(packet[0] & 15) * 4;
    if (packet[IP4_PROTOCOL] != PROTOCOL_TCP || (load_be16(packet + IP4_FRAGMENT) & IP4_OFFSET) != 0) return;
  } else {
    header = IP6_HEADER;
    if (packet[IP6_NEXT_HEADER] != PROTOCOL_TCP) return;
  }
  if (length < header + TCP_HEADER) return;
  uint8_t *tcp = packet + header;
  size_t end = (size_t)(tcp[TCP_DATA_OFFSET] >> 4) * 4;
  if ((tcp[TCP_FLAGS] & TCP_SYN) == 0 || end > length - header) return;
  uint32_t fixed = (packet[0] >> 4 == 4 ? IP4_HEADER : IP6_HEADER) + TCP_HEADER;
  if (most <= fixed) return;
  for (size_t at = TCP_HEADER; at < end && tcp[at] != OPTION_END;) {
    if (tcp[at] == OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 2 > end || tcp[at + 1] < 2 || at + tcp[at + 1] > end) return;
    if (tcp[at] == OPTION_MSS && tcp[at + 1] == 4 && load_be16(tcp + at + 2) > most - fixed)
      replace16(tcp, at + 2, (uint16_t)(most - fixed));
    at += tcp[at + 1];
  }
}

bool mtu_may_fragment(const uint8_t *packet) {
  return packet[0] == 0x45 && (load_be16(packet + IP4_FRAGMENT) & IP4_DONT_FRAGMENT) == 0;
}

size_t mtu_fragment(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most, uint32_t *at) {
  uint32_t payload = (uint32_t)length - IP4_HEADER, step = (most - IP4_HEADER) & ~7u;
  if (*at >= payload || most < IP4_HEADER + 8) return 0;
  uint32_t rest = payload - *at, piece = rest < step ? rest : step;
  uint16_t field = load_be16(packet + IP4_FRAGMENT);
  bool more = piece < rest || (field & IP4_MORE) != 0;
  memcpy(to, packet, IP4_HEADER);
  memcpy(to + IP4_HEADER, packet + IP4_HEADER + *at, piece);
  store_be16(to + IP4_TOTAL_LENGTH, (uint16_t)(IP4_HEADER + piece));
  store_be16(to + IP4_FRAGMENT, (uint16_t)((more ? IP4_MORE : 0) | (((field & IP4_OFFSET) + *at / 8) & IP4_OFFSET)));
  memset(to + IP4_CHECKSUM, 0, 2);
  store_sum(to + IP4_CHECKSUM, checksum_header(to, IP4_HEADER, 0));
  *at += piece;
  return IP4_HEADER + piece;
}

static bool may_complain4(const uint8_t *packet, size_t length) {
  size_t header = (size_t)(packet[0] & 15) * 4;
  if ((load_be16(packet + IP4_FRAGMENT) & IP4_OFFSET) != 0) return false;
  if (packet[IP4_PROTOCOL] != ICMP) return true;
  if (length < header + 1) return false;
  uint8_t type = packet[header]; // errors: unreachable, quench, redirect, time exceeded, parameter problem
  return type != 3 && type != 4 && type != 5 && type != 11 && type != 12;
}

static size_t complaint4(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most) {
  size_t quote = length < IP4_QUOTE ? length : IP4_QUOTE, whole = IP4_HEADER + ICMP_HEADER + quote;
  memset(to, 0, IP4_HEADER + ICMP_HEADER);
  to[0] = 0x45;
  to[1] = 0xc0; // internetwork control (RFC 1812 section 4.3.2.5)
  store_be16(to + IP4_TOTAL_LENGTH, (uint16_t)whole);
  to[8] = 64;
  to[IP4_PROTOCOL] = ICMP;
  memcpy(to + IP4_SOURCE, packet + IP4_DESTINATION, 4);
  memcpy(to + IP4_DESTINATION, packet + IP4_SOURCE, 4);
  store_sum(to + IP4_CHECKSUM, checksum_header(to, IP4_HEADER, 0));
  uint8_t *icmp = to + IP4_HEADER;
  icmp[0] = ICMP_UNREACHABLE;
  icmp[1] = ICMP_FRAGMENTATION_NEEDED;
  store_be16(icmp + 6, (uint16_t)most);
  memcpy(icmp + ICMP_HEADER, packet, quote);
  store_sum(icmp + 2, checksum_add(icmp, ICMP_HEADER + quote, 0));
  return whole;
}

static size_t complaint6(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most) {
  size_t room = MTU_COMPLAINT_MAX - IP6_HEADER - ICMP_HEADER, quote = length < room ? length : room;
  memset(to, 0, IP6_HEADER + ICMP_HEADER);
  to[0] = 0x60;
  store_be16(to + IP6_PAYLOAD_LENGTH, (uint16_t)(ICMP_HEADER + quote));
  to[IP6_NEXT_HEADER] = ICMPV6;
  to[7] = 64;
  memcpy(to + IP6_SOURCE, packet + IP6_DESTINATION, 16);
  memcpy(to + IP6_DESTINATION, packet + IP6_SOURCE, 16);
  uint8_t *icmp = to + IP6_HEADER;
  icmp[0] = ICMPV6_TOO_BIG;
  store_be32(icmp + 4, most);
  memcpy(icmp + ICMP_HEADER, packet, quote);
  store_sum(icmp + 2, checksum_add(icmp, ICMP_HEADER + quote,
                                   checksum_pseudo(to + IP6_SOURCE, 32, ICMPV6, ICMP_HEADER + quote)));
  return IP6_HEADER + ICMP_HEADER + quote;
}

size_t mtu_complaint(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most) {
  if (packet[0] >> 4 == 4) return may_complain4(packet, length) ? complaint4(to, packet, length, most) : 0;
  // Nobody sends smaller packets than this over IPv6, whatever they are told (RFC 8201 section 4).
  if (length <= IP6_LEAST_MTU) return 0;
  if (packet[IP6_NEXT_HEADER] == ICMPV6 && length > IP6_HEADER && packet[IP6_HEADER] < 128) return 0;
  return complaint6(to, packet, length, most < IP6_LEAST_MTU ? IP6_LEAST_MTU : most);
}
