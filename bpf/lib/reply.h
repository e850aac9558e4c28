/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a packet is answered with where its sender, or both ends of its connection, are to be told: the packet itself is
 * made into the answer, in place. TCP gets a reset with the numbers that its receiver takes (RFC 9293 3.10.7.1), all else
 * "administratively prohibited" (RFC 1812 5.2.7.1, RFC 4443 3.1), which quotes the packet.
 *
 * An ICMP error, a reset and a later fragment are never answered (RFC 1122 3.2.2, RFC 4443 2.4).
 */
#pragma once

#include "maps.h"
#include "packet.h"
#include "parse.h"
#include "translate.h"
#include "transport.h"

/* As iptables' REJECT: 3/13 of ICMP, 1/1 of ICMPv6. */
#define REPLY_PROHIBITED 13
#define REPLY_PROHIBITED_V6 1

/* Answers of one endpoint to one peer: so many at once, and then one in each interval. */
#define REPLY_INTERVAL_NS 10000000ULL
#define REPLY_BURST_NS (50 * REPLY_INTERVAL_NS)

/* What is cut out of a frame behind its link header, and what is left: no header with a checksum lies behind the cut. */
#define REPLY_CUT 192
#define REPLY_LEFT 64

/* Leaves where `value` is not between the two; the verifier sees both bounds on the register that is used (Linux 6.1). */
#define REPLY_BOUND(value, least, most)                                                                               \
	do {                                                                                                          \
		asm volatile("" : "+r"(value));                                                                       \
		if (value < (least))                                                                                  \
			return -1;                                                                                    \
		asm volatile("" : "+r"(value));                                                                       \
		if (value > (most))                                                                                   \
			return -1;                                                                                    \
	} while (0)

enum reply_way {
	REPLY_BACK = 0, /* to who sent the packet */
	REPLY_ON = 1,	/* to whom the packet is for */
};

/* What a segment says of its connection's streams, in network order. */
struct reply_numbers {
	__be32 sequence;
	__be32 acknowledgment;
};

/* Whether a packet may be answered at all. */
static __always_inline bool reply_may(const struct packet *packet)
{
	if (packet->flags & (PACKET_RELATED | PACKET_NEIGHBOUR | PACKET_LATER_FRAGMENT))
		return false;
	return packet->protocol != IPPROTO_TCP || !(packet->tcp_flags & TCP_RST);
}

/* Whether it is not too often that the endpoint's side answers `remote`. */
static __always_inline bool reply_due(__u32 endpoint, const struct addr *remote)
{
	struct reply_limit_key key = { .endpoint = endpoint, .remote = *remote };
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 *next = bpf_map_lookup_elem(&reply_limits, &key);
	__u64 first = now + REPLY_INTERVAL_NS;

	if (!next) {
		bpf_map_update_elem(&reply_limits, &key, &first, BPF_ANY);
		return true;
	}
	if (*next > now + REPLY_BURST_NS)
		return false;
	*next = (*next > now ? *next : now) + REPLY_INTERVAL_NS;
	return true;
}

static __always_inline struct reply_buffer *reply_buffer_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&reply_buffers, &zero);
}

static __always_inline __u16 reply_fold(__s64 sum)
{
	__u32 folded = sum;

	folded = (folded & 0xffff) + (folded >> 16);
	folded = (folded & 0xffff) + (folded >> 16);
	return ~folded;
}

/*
 * The network header of an answer with `length` bytes behind it. What the transport's checksum adds is in `covered`: an
 * IPv4 address counts there as it stands in struct addr, since 0xffff is nothing in such a sum.
 */
static __always_inline void reply_network(struct reply_buffer *buffer, const struct packet *packet, __u32 way,
					  __u8 protocol, __u32 length)
{
	bool back = way == REPLY_BACK;

	buffer->covered.source = back ? packet->destination : packet->source;
	buffer->covered.destination = back ? packet->source : packet->destination;
	buffer->covered.length = bpf_htonl(length);
	buffer->covered.protocol = bpf_htonl(protocol);
	__builtin_memset(&buffer->network, 0, sizeof(buffer->network));
	if (packet->family == 4) {
		struct iphdr *ip = &buffer->network.v4.header;

		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = bpf_htons(sizeof(*ip) + length);
		ip->frag_off = bpf_htons(0x4000);
		ip->ttl = 64;
		ip->protocol = protocol;
		ip->saddr = buffer->covered.source.words[3];
		ip->daddr = buffer->covered.destination.words[3];
		ip->check = reply_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
	} else {
		struct ipv6hdr *ip = &buffer->network.v6;

		ip->version = 6;
		ip->payload_len = bpf_htons(length);
		ip->nexthdr = protocol;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, &buffer->covered.source, sizeof(ip->saddr));
		__builtin_memcpy(&ip->daddr, &buffer->covered.destination, sizeof(ip->daddr));
	}
}

/* Turns the link header around. */
static __always_inline long reply_turn(struct __sk_buff *skb)
{
	__u8 macs[2 * MAC_LENGTH], turned[2 * MAC_LENGTH];

	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0)
		return -1;
	__builtin_memcpy(turned, macs + MAC_LENGTH, MAC_LENGTH);
	__builtin_memcpy(turned + MAC_LENGTH, macs, MAC_LENGTH);
	return bpf_skb_store_bytes(skb, 0, turned, sizeof(turned), 0);
}

/*
 * Makes the frame an answer: its link header, turned around if it goes back, and the buffer's headers with `length` bytes
 * of transport. Nothing of what the frame was is left, nor what a device was yet to do to it: changing its length makes
 * it a single packet (no segments to be cut), and that the place where a checksum was to be filled in is cut out, before
 * bytes are counted anew, makes the kernel forget about that (__skb_postpull_rcsum).
 */
SUBPROGRAM long reply_write(struct __sk_buff *skb, __u32 family, __u32 length, __u32 way)
{
	struct reply_buffer *buffer = reply_buffer_get();
	__u32 header = family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	long failed;

	if (!buffer)
		return -1;
	REPLY_BOUND(length, 8, sizeof(buffer->transport));
	if (bpf_skb_change_tail(skb, ETH_HLEN + REPLY_CUT + REPLY_LEFT, 0) < 0 ||
	    bpf_skb_adjust_room(skb, -REPLY_CUT, BPF_ADJ_ROOM_MAC, 0) < 0 ||
	    bpf_skb_change_tail(skb, ETH_HLEN + header + length, 0) < 0)
		return -1;
	if (family == 4)
		failed = bpf_skb_store_bytes(skb, ETH_HLEN, &buffer->network.v4.header, sizeof(struct iphdr),
					     BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
	else
		failed = bpf_skb_store_bytes(skb, ETH_HLEN, &buffer->network.v6, sizeof(struct ipv6hdr),
					     BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
	if (failed < 0 ||
	    bpf_skb_store_bytes(skb, ETH_HLEN + header, buffer->transport, length, BPF_F_RECOMPUTE_CSUM) < 0)
		return -1;
	return way == REPLY_BACK ? reply_turn(skb) : 0;
}

/* Reads the numbers of a TCP segment, before it is made into anything else. */
static __always_inline bool reply_read(struct __sk_buff *skb, const struct packet *packet,
				       struct reply_numbers *numbers)
{
	return packet->l4_header != 0 && bpf_skb_load_bytes(skb, packet->l4 + 4, numbers, sizeof(*numbers)) == 0;
}

/*
 * Makes the frame a TCP reset, as `packet` (as it was sent: flags, lengths) and its numbers ask for. Back: of the stream
 * that its sender has acknowledged, or, where it has not, with an acknowledgment of all it sent. On: in the place of the
 * packet itself. 0: done; else the frame is to be dropped.
 */
SUBPROGRAM long reply_reset(struct __sk_buff *skb, const struct packet *packet, const struct reply_numbers *numbers,
			    __u32 way)
{
	struct reply_buffer *buffer = reply_buffer_get();
	struct reply_segment *segment;
	__u32 taken;
	__s64 sum;

	if (!buffer || !packet || !numbers)
		return -1;
	segment = (struct reply_segment *)buffer->transport;
	__builtin_memset(segment, 0, sizeof(*segment));
	segment->source = way == REPLY_BACK ? packet->destination_port : packet->source_port;
	segment->destination = way == REPLY_BACK ? packet->source_port : packet->destination_port;
	segment->offset = (sizeof(*segment) / 4) << 4;
	segment->flags = TCP_RST;
	if (way == REPLY_ON) {
		segment->sequence = numbers->sequence;
		if (packet->tcp_flags & TCP_ACK) {
			segment->flags |= TCP_ACK;
			segment->acknowledgment = numbers->acknowledgment;
		}
	} else if (packet->tcp_flags & TCP_ACK) {
		segment->sequence = numbers->acknowledgment;
	} else {
		taken = packet->length - (packet->l4 - packet->l3) - packet->l4_header;
		taken += (packet->tcp_flags & TCP_SYN ? 1 : 0) + (packet->tcp_flags & TCP_FIN ? 1 : 0);
		segment->flags |= TCP_ACK;
		segment->acknowledgment = bpf_htonl(bpf_ntohl(numbers->sequence) + taken);
	}
	reply_network(buffer, packet, way, IPPROTO_TCP, sizeof(*segment));
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&buffer->covered, sizeof(buffer->covered), 0);
	segment->checksum = reply_fold(bpf_csum_diff(NULL, 0, (__be32 *)segment, sizeof(*segment), sum));
	return reply_write(skb, packet->family, sizeof(*segment), way);
}

/* Makes the frame an ICMP error about itself, for its sender. 0: done; else the frame is to be dropped. */
SUBPROGRAM long reply_prohibited(struct __sk_buff *skb, const struct packet *packet)
{
	struct reply_buffer *buffer = reply_buffer_get();
	__u32 quoted;
	__s64 sum = 0;

	if (!buffer || !packet)
		return -1;
	quoted = packet->length < REPLY_QUOTE ? packet->length : REPLY_QUOTE;
	REPLY_BOUND(quoted, sizeof(struct iphdr) + 8, REPLY_QUOTE);
	__builtin_memset(buffer->transport, 0, sizeof(buffer->transport));
	if (bpf_skb_load_bytes(skb, packet->l3, buffer->transport + 8, quoted) < 0)
		return -1;
	buffer->transport[0] = packet->family == 4 ? ICMP_UNREACHABLE : ICMPV6_UNREACHABLE;
	buffer->transport[1] = packet->family == 4 ? REPLY_PROHIBITED : REPLY_PROHIBITED_V6;
	reply_network(buffer, packet, REPLY_BACK, packet->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6_NUMBER, 8 + quoted);
	if (packet->family == 6)
		sum = bpf_csum_diff(NULL, 0, (__be32 *)&buffer->covered, sizeof(buffer->covered), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)buffer->transport, sizeof(buffer->transport), sum);
	*(__u16 *)(buffer->transport + ICMP_CHECKSUM_OFFSET) = reply_fold(sum);
	return reply_write(skb, packet->family, 8 + quoted, REPLY_BACK);
}
