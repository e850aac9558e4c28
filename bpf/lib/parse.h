/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From bytes to struct packet. Headers are read in place where they lie in the linear part of the packet, and pulled
 * there where they do not; the payload is never touched, so large segments pass whole.
 */
#pragma once

#include "packet.h"
#include "reasons.h"

#define IPV6_EXTENSIONS_MAX 6
#define IPV4_OPTIONS_MAX 40

#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION 60
#define IPV6_AUTHENTICATION 51

#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000

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

/* Read by hand: left to itself the compiler keeps the pointers as the 32-bit numbers that struct __sk_buff says they are. */
#define SKB_POINTER(skb, member)                                                                                      \
	({                                                                                                            \
		void *pointer;                                                                                        \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                                                                 \
			     : "=r"(pointer)                                                                          \
			     : "r"(skb), "i"(offsetof(struct __sk_buff, member)));                                    \
		pointer;                                                                                              \
	})

/*
 * The `length` bytes at `offset`, both known at compile time, in the linear part of the packet; NULL where the packet
 * is shorter. Pointers from before are void afterwards.
 */
static __always_inline void *header_at(struct __sk_buff *skb, const __u32 offset, const __u32 length)
{
	void *data = SKB_POINTER(skb, data);

	if (data + offset + length <= SKB_POINTER(skb, data_end))
		return data + offset;
	bpf_skb_pull_data(skb, offset + length);
	data = SKB_POINTER(skb, data);
	return data + offset + length <= SKB_POINTER(skb, data_end) ? data + offset : NULL;
}

/* Whether none of the IPv4 options steers the route (RFC 791 LSRR 131, SSRR 137; refused as RFC 7126 advises). */
SUBPROGRAM enum drop_reason parse_ipv4_options(struct __sk_buff *skb, __u32 offset, __u32 length)
{
	__u32 end = offset + length;

	for (int i = 0; i < IPV4_OPTIONS_MAX; i++) {
		__u8 option[2] = {};

		if (offset >= end)
			return FORWARDED;
		if (bpf_skb_load_bytes(skb, offset, option, 1) < 0)
			return MALFORMED;
		if (option[0] == 0)
			return FORWARDED;
		if (option[0] == 1) {
			offset++;
			continue;
		}
		if (option[0] == 131 || option[0] == 137)
			return SOURCE_ROUTED;
		if (bpf_skb_load_bytes(skb, offset, option, 2) < 0 || option[1] < 2 || offset + option[1] > end)
			return MALFORMED;
		offset += option[1];
	}
	return FORWARDED;
}

static __always_inline void parse_fragment_offset(struct packet *packet, __u32 units, bool more)
{
	if (units != 0) {
		packet->flags |= PACKET_LATER_FRAGMENT;
		packet->fragment_offset = units > 255 ? 255 : units;
	} else if (more) {
		packet->flags |= PACKET_FIRST_FRAGMENT;
	}
}

static __always_inline enum drop_reason parse_ipv4(struct __sk_buff *skb, struct packet *packet, const __u32 l3)
{
	struct iphdr *ip = header_at(skb, l3, sizeof(struct iphdr));
	__u32 header, total, fragment;

	if (!ip)
		return MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (total == 0 && skb->gso_size != 0) /* too large for the field (BIG TCP) */
		total = skb->len - l3;
	if (ip->version != 4 || header < sizeof(*ip) || total < header || l3 + total > skb->len)
		return MALFORMED;
	addr_set_ipv4(&packet->source, ip->saddr);
	addr_set_ipv4(&packet->destination, ip->daddr);
	packet->family = 4;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->length = total;
	packet->l3 = l3;
	packet->l4 = l3 + header;
	packet->fragment_id = (__be32)ip->id;
	fragment = bpf_ntohs(ip->frag_off);
	parse_fragment_offset(packet, fragment & IPV4_FRAGMENT_OFFSET, fragment & IPV4_MORE_FRAGMENTS);
	if (header > sizeof(*ip))
		return parse_ipv4_options(skb, l3 + sizeof(*ip), header - sizeof(*ip));
	return FORWARDED;
}

/*
 * Walks the extension headers to the transport header. Every routing header is refused, not only type 0 (RFC 5095):
 * each kind of it steers. More headers than the bound are refused with what is not understood.
 */
SUBPROGRAM enum drop_reason parse_ipv6_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u32 offset, next;

	if (!packet)
		return MALFORMED;
	offset = packet->l4;
	next = packet->protocol;
	for (int i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
		__u8 header[8];

		if (next != IPV6_HOP_BY_HOP && next != IPV6_ROUTING && next != IPV6_FRAGMENT &&
		    next != IPV6_DESTINATION && next != IPV6_AUTHENTICATION)
			break;
		if (bpf_skb_load_bytes(skb, offset, header, sizeof(header)) < 0)
			return MALFORMED;
		if (next == IPV6_ROUTING)
			return SOURCE_ROUTED;
		if (next == IPV6_FRAGMENT) {
			__u32 units = (header[2] << 5) | (header[3] >> 3);

			if (packet->flags & (PACKET_FIRST_FRAGMENT | PACKET_LATER_FRAGMENT))
				return MALFORMED;
			__builtin_memcpy(&packet->fragment_id, header + 4, 4);
			parse_fragment_offset(packet, units, header[3] & 1);
			offset += 8;
		} else if (next == IPV6_AUTHENTICATION) {
			offset += (header[1] + 2) * 4;
		} else {
			offset += (header[1] + 1) * 8;
		}
		next = header[0];
		if (packet->flags & PACKET_LATER_FRAGMENT)
			break; /* what follows is the middle of something */
	}
	if (next == IPV6_HOP_BY_HOP || next == IPV6_ROUTING || next == IPV6_FRAGMENT || next == IPV6_DESTINATION ||
	    next == IPV6_AUTHENTICATION)
		return UNKNOWN_L4;
	if (offset > packet->l3 + packet->length)
		return MALFORMED;
	packet->protocol = next;
	packet->l4 = offset;
	return FORWARDED;
}

static __always_inline enum drop_reason parse_ipv6(struct __sk_buff *skb, struct packet *packet, const __u32 l3)
{
	struct ipv6hdr *ip = header_at(skb, l3, sizeof(struct ipv6hdr));
	__u32 total;

	if (!ip)
		return MALFORMED;
	total = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (total == sizeof(*ip) && skb->gso_size != 0)
		total = skb->len - l3;
	if (ip->version != 6 || l3 + total > skb->len)
		return MALFORMED;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr, sizeof(packet->destination));
	/* On the wire of IPv6 such an address is somebody's attempt to pass for an IPv4 one. */
	if (addr_is_ipv4(&packet->source) || addr_is_ipv4(&packet->destination))
		return MALFORMED;
	packet->family = 6;
	packet->protocol = ip->nexthdr;
	packet->ttl = ip->hop_limit;
	packet->length = total;
	packet->l3 = l3;
	packet->l4 = l3 + sizeof(*ip);
	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return FORWARDED;
	default:
		return parse_ipv6_extensions(skb, packet);
	}
}

/* Addresses, transport protocol, fragmentation. `ethertype` in network order; `l3` is known at compile time. */
static __always_inline enum drop_reason parse_network(struct __sk_buff *skb, struct packet *packet, const __u32 l3,
						      __be16 ethertype)
{
	if (ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, packet, l3);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(skb, packet, l3);
	return UNKNOWN_L3;
}

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
