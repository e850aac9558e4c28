/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From bytes to struct packet: the transport header, and what of it is not understood or contradicts itself. */
#pragma once

#include "packet.h"
#include "reasons.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_PARAMETER_PROBLEM 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_MLD_QUERY 130
#define ICMPV6_MLD_DONE 132
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_ROUTER_ADVERTISEMENT 134
#define ICMPV6_NEIGHBOUR_SOLICITATION 135
#define ICMPV6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMPV6_REDIRECT 137
#define ICMPV6_MLD_REPORT_V2 143

static __always_inline enum drop_reason parse_icmp(struct packet *packet, __u32 type, __be16 id)
{
	switch (type) {
	case ICMP_ECHO_REQUEST:
		packet->source_port = id;
		return FORWARDED;
	case ICMP_ECHO_REPLY:
		packet->destination_port = id;
		packet->flags |= PACKET_REPLY_ONLY;
		return FORWARDED;
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		packet->flags |= PACKET_RELATED;
		return FORWARDED;
	default:
		return UNKNOWN_L4;
	}
}

static __always_inline enum drop_reason parse_icmpv6(struct packet *packet, __u32 type, __be16 id)
{
	switch (type) {
	case ICMPV6_ECHO_REQUEST:
		packet->source_port = id;
		return FORWARDED;
	case ICMPV6_ECHO_REPLY:
		packet->destination_port = id;
		packet->flags |= PACKET_REPLY_ONLY;
		return FORWARDED;
	case ICMPV6_UNREACHABLE ... ICMPV6_PARAMETER_PROBLEM:
		packet->flags |= PACKET_RELATED;
		return FORWARDED;
	case ICMPV6_MLD_QUERY ... ICMPV6_REDIRECT:
	case ICMPV6_MLD_REPORT_V2:
		packet->flags |= PACKET_NEIGHBOUR;
		return FORWARDED;
	default:
		return UNKNOWN_L4;
	}
}

static __always_inline enum drop_reason parse_tcp(struct packet *packet, const __u8 *header, __u32 room)
{
	__u32 length = (header[12] >> 4) * 4;
	__u8 flags = header[13] & 0x3f;

	if (length < 20 || (length > room && !(packet->flags & PACKET_FIRST_FRAGMENT)))
		return MALFORMED;
	/* Flags that no TCP sends: opening and closing at once, or neither of anything. */
	if ((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST)))
		return MALFORMED;
	if (!(flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)))
		return MALFORMED;
	packet->tcp_flags = flags;
	packet->l4_header = length;
	return FORWARDED;
}

/*
 * Reads the transport header of a packet that is whole or a first fragment, and refuses what is not understood.
 * A first fragment must hold the whole fixed header, and no later one may lie over it (RFC 1858, RFC 3128, RFC 7112).
 */
SUBPROGRAM enum drop_reason parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[20] = {};
	__u32 end, room, fixed;

	if (!packet)
		return MALFORMED;
	end = packet->l3 + packet->length;
	room = end - packet->l4;
	switch (packet->protocol) {
	case IPPROTO_TCP:
		fixed = 20;
		break;
	case IPPROTO_UDP:
		fixed = 8;
		break;
	case IPPROTO_SCTP_NUMBER:
		fixed = 16; /* the common header and the first chunk's */
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6_NUMBER:
		if ((packet->protocol == IPPROTO_ICMP) != (packet->family == 4))
			return UNKNOWN_L4;
		fixed = 8;
		break;
	default:
		return UNKNOWN_L4;
	}
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return packet->fragment_offset * 8 < fixed ? MALFORMED : FORWARDED;
	if (packet->l4 > end || room < fixed)
		return MALFORMED;
	switch (packet->protocol) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, packet->l4, header, 20) < 0)
			return MALFORMED;
		break;
	case IPPROTO_SCTP_NUMBER:
		if (bpf_skb_load_bytes(skb, packet->l4, header, 16) < 0)
			return MALFORMED;
		break;
	default:
		if (bpf_skb_load_bytes(skb, packet->l4, header, 8) < 0)
			return MALFORMED;
	}
	packet->l4_header = fixed;
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == IPPROTO_ICMPV6_NUMBER) {
		enum drop_reason reason;
		__be16 id;

		packet->icmp_type = header[0];
		__builtin_memcpy(&id, header + 4, 2);
		reason = packet->family == 4 ? parse_icmp(packet, header[0], id) : parse_icmpv6(packet, header[0], id);
		/* RFC 792, RFC 4443: an echo's code is 0. So a rule about a code decides about every echo that there is. */
		if (!reason && header[1] != 0 && !(packet->flags & (PACKET_RELATED | PACKET_NEIGHBOUR)))
			return MALFORMED;
		/* RFC 6980 forbids fragments of ND; a quoted packet must be read whole. */
		if ((packet->flags & (PACKET_RELATED | PACKET_NEIGHBOUR)) && (packet->flags & PACKET_FIRST_FRAGMENT))
			return MALFORMED;
		return reason;
	}
	__builtin_memcpy(&packet->source_port, header, 2);
	__builtin_memcpy(&packet->destination_port, header + 2, 2);
	if (packet->protocol == IPPROTO_TCP)
		return parse_tcp(packet, header, room);
	if (packet->protocol == IPPROTO_UDP) {
		__u32 length = (header[4] << 8) | header[5];

		if (length < 8 || (length > room && !(packet->flags & PACKET_FIRST_FRAGMENT)))
			return MALFORMED;
	} else {
		packet->icmp_type = header[12];
		packet->l4_header = 12;
	}
	return FORWARDED;
}
