/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS (RFC 1035), as far as policy is about names: what a pod asks, and what it is answered.
 *
 * A question is judged by the name that it is for. One that may go is noted, with its id, under its connection. An answer
 * to a question that is noted teaches the endpoint the addresses that it has for that name, before the pod has it: what
 * cannot be read or learnt does not come through. Whoever sends something else teaches nothing.
 *
 * Only whole messages are read: over UDP one that is not in fragments. Over TCP they may be in any pieces (dns_stream.h).
 */
#pragma once

#include "conntrack.h"
#include "dns_stream.h"

#define DNS_PORT 53
#define DNS_SEGMENTS 8	 /* datagrams that the kernel may have joined */
#define DNS_REFUSED 5
#define DNS_QUERY_NS (30 * SECOND_NS)

/* track->dns: what the pod's packet was found to be. */
enum dns_read {
	DNS_NOT_LOOKED_AT = 0,
	DNS_OPAQUE = 1,	  /* no question that can be read */
	DNS_QUESTION = 2, /* to be noted once it is let through */
	DNS_IDLE = 3,	  /* nothing is asked or taught by it */
};

static __always_inline bool dns_is_carried(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || packet->protocol == IPPROTO_TCP;
}

/* Whether the pod's packet goes to where DNS is, as the pod or as the server sees it. */
static __always_inline bool dns_is_asked(const struct packet *packet, const struct track *track)
{
	return dns_is_carried(packet) && (packet->destination_port == bpf_htons(DNS_PORT) ||
					  track->key.remote_port == bpf_htons(DNS_PORT));
}

/* A datagram is one message. */
static __always_inline bool dns_read_datagram(struct __sk_buff *skb, const struct packet *packet, struct dns_scratch *dns,
					      __u32 matcher)
{
	__u32 offset, length = dns_payload(packet, &offset);

	return skb->gso_size == 0 && dns_is_whole(skb, packet, length) && dns_copy(skb, dns, offset, length) &&
	       dns_read_query(dns, matcher);
}

/*
 * Reads what the pod sends to port 53 over TCP: dns->asked has the questions that end in it, dns->accept what all of them
 * ask of policy. @returns Whether it can be read.
 */
SUBPROGRAM int dns_read_segment(struct __sk_buff *skb, const struct packet *packet, const struct ct_key *connection,
				__u32 matcher)
{
	struct dns_scratch *dns = dns_scratch_get();

	if (!dns || !packet || !connection || !asking_gather(skb, packet, connection, dns))
		return 0;
	dns->matching = matcher;
	return asking_read(dns);
}

/*
 * A packet that the pod sends to port 53. Says in `track` by which rule sets it is to be judged: those for its question;
 * of a TCP segment in which none ends, those for anything that may be asked; what cannot be read is judged as no question.
 */
SUBPROGRAM enum drop_reason dns_ask(struct __sk_buff *skb, const struct endpoint *endpoint, const struct packet *packet,
				    struct track *track)
{
	struct dns_scratch *dns = dns_scratch_get();
	struct name_matcher *matcher;
	__u32 number, offset;
	bool asks;

	if (!dns || !endpoint || !packet || !track)
		return DNS_MALFORMED;
	number = endpoint->names;
	matcher = bpf_map_lookup_elem(&name_matchers, &number);
	if (!matcher)
		return UNKNOWN_RULE_SET;
	asks = matcher->flags & MATCHER_ASKS;
	track->dns = DNS_OPAQUE;
	if (asks) {
		track->flags |= TRACK_BY_NAME;
		track->sets[0] = endpoint->egress_admin_set;
		track->sets[1] = endpoint->egress_set;
		track->sets[2] = endpoint->egress_mesh_set;
	}
	dns->asked_count = 0;
	if (packet->flags & PACKET_FRAGMENT)
		return FORWARDED;
	if (packet->protocol == IPPROTO_TCP) {
		bool carries = dns_payload(packet, &offset) != 0;

		if (!carries && ct_is_syn(packet))
			asking_open(skb, packet, &track->key);
		if (carries && !dns_read_segment(skb, packet, &track->key, number))
			return FORWARDED;
		track->dns = carries ? DNS_QUESTION : DNS_IDLE;
		if (!carries || dns->asked_count == 0) {
			if (asks) {
				track->sets[0] = matcher->admin_set;
				track->sets[1] = matcher->network_set;
				track->sets[2] = matcher->mesh_set;
			}
			return FORWARDED;
		}
	} else {
		if (!dns_read_datagram(skb, packet, dns, number))
			return FORWARDED;
		asking_add(dns);
		track->dns = asks || dns->accept.count != 0 ? DNS_QUESTION : DNS_IDLE;
	}
	if (asks) {
		track->sets[0] = dns->accept.admin_set;
		track->sets[1] = dns->accept.network_set;
		track->sets[2] = dns->accept.mesh_set;
	}
	return FORWARDED;
}

static __always_inline void dns_key_of(struct dns_query_key *key, const struct track *track, __be16 id)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->connection = track->key;
	key->id = id;
}

/*
 * Notes the questions that dns_ask read and that were let through. @returns Whether the packet may go: over TCP not, where
 * another one came in between on the connection.
 */
SUBPROGRAM int dns_note(const struct packet *packet, const struct track *track)
{
	struct dns_scratch *dns = dns_scratch_get();
	struct dns_query query = {};
	struct dns_query_key key;

	if (!dns || !packet || !track)
		return 0;
	if (packet->protocol == IPPROTO_TCP && !asking_commit(&track->key, dns))
		return 0;
	query.expires_ns = bpf_ktime_get_coarse_ns() + DNS_QUERY_NS;
	for (__u32 i = 0; i < DNS_AT_ONCE; i++) {
		if (i >= dns->asked_count)
			break;
		dns_key_of(&key, track, dns->asked[i].id);
		query.question = dns->asked[i].question;
		bpf_map_update_elem(&dns_queries, &key, &query, BPF_ANY);
	}
	return 1;
}

/* What a question was denied for. */
static __always_inline enum drop_reason dns_denied(const struct track *track, enum drop_reason reason)
{
	if (!(track->flags & TRACK_BY_NAME) || (reason != POLICY_DENIED && reason != POLICY_DENIED_EXPLICIT))
		return reason;
	return track->dns == DNS_OPAQUE ? DNS_MALFORMED : DNS_DENIED;
}

/* Whether the question that was read is one that went out on the connection. */
static __noinline bool dns_was_asked(const struct dns_scratch *dns, const struct track *track)
{
	struct dns_query_key key;
	struct dns_query *query;

	dns_key_of(&key, track, dns->id);
	query = bpf_map_lookup_elem(&dns_queries, &key);
	return query && query->question == dns->question && query->expires_ns >= bpf_ktime_get_coarse_ns();
}

/* One answer that came in from port 53, in dns->message. */
SUBPROGRAM enum drop_reason dns_answer(const struct endpoint *endpoint, const struct track *track)
{
	struct dns_scratch *dns = dns_scratch_get();
	__u32 matcher, id;

	if (!dns || !endpoint || !track)
		return DNS_MALFORMED;
	matcher = endpoint->names;
	id = endpoint->id;
	if (!(dns_number(dns, 2) & DNS_RESPONSE) || (dns_number(dns, 2) & DNS_OPCODE) || !dns_read_question(dns, matcher))
		return DNS_MALFORMED;
	if (dns->accept.count == 0 && !(track->flags & TRACK_BY_NAME))
		return FORWARDED;
	if (!dns_was_asked(dns, track))
		return DNS_UNASKED;
	if (dns->accept.count == 0)
		return FORWARDED;
	if (dns->accept.count > NAME_PATTERNS)
		return NAMES_FULL;
	return dns_learn_all(dns, id);
}

static __always_inline enum drop_reason dns_answer_at(struct __sk_buff *skb, const struct endpoint *endpoint,
						      const struct track *track, __u32 offset, __u32 length)
{
	struct dns_scratch *dns = dns_scratch_get();

	if (!dns || !dns_copy(skb, dns, offset, length))
		return DNS_MALFORMED;
	return dns_answer(endpoint, track);
}

/* Answers over TCP. What has come before may come again; what comes too early must. */
static __always_inline enum drop_reason dns_receive_segment(struct __sk_buff *skb, const struct endpoint *endpoint,
							    const struct packet *packet, const struct track *track)
{
	struct dns_scratch *dns = dns_scratch_get();
	enum drop_reason reason;
	int length;

	if (!dns)
		return DNS_MALFORMED;
	length = telling_gather(skb, packet, &track->key, dns);
	if (length <= 0)
		return length == 0 ? FORWARDED : DNS_MALFORMED;
	for (int i = 0; i < DNS_TOLD_AT_ONCE; i++) {
		length = telling_next(skb);
		if (length <= 0)
			break;
		reason = dns_answer(endpoint, track);
		if (reason)
			return reason;
	}
	return length >= 0 && dns->rest == 0 && telling_commit(&track->key, dns) ? FORWARDED : DNS_MALFORMED;
}

/* Whether a reply of the connection comes from where DNS is, as the server or as the pod sees it. */
static __always_inline bool dns_is_reply(const struct packet *packet, const struct track *track)
{
	__u32 service = track->service;
	struct service_end *front;

	if (!track->reply || !dns_is_carried(packet))
		return false;
	if (packet->source_port == bpf_htons(DNS_PORT))
		return true;
	front = service == 0 ? NULL : bpf_map_lookup_elem(&service_fronts, &service);
	return front && front->port == bpf_htons(DNS_PORT);
}

/* A packet with answers for a pod whose policy is about names. */
SUBPROGRAM enum drop_reason dns_receive(struct __sk_buff *skb, const struct endpoint *endpoint,
					const struct packet *packet, const struct track *track)
{
	enum drop_reason reason;
	__u32 offset, length;

	if (!endpoint || !packet || !track)
		return DNS_MALFORMED;
	if (!dns_is_reply(packet, track))
		return FORWARDED;
	if (packet->flags & PACKET_FRAGMENT)
		return DNS_MALFORMED;
	if (packet->protocol == IPPROTO_TCP)
		return dns_receive_segment(skb, endpoint, packet, track);
	if (skb->gso_size != 0) {
		/* Several, joined on their way. */
		__u32 each = skb->gso_size;

		length = dns_payload(packet, &offset);
		for (int i = 0; i < DNS_SEGMENTS; i++) {
			reason = dns_answer_at(skb, endpoint, track, offset, length < each ? length : each);
			if (reason || length <= each)
				return reason;
			offset += each;
			length -= each;
		}
		return DNS_MALFORMED;
	}
	length = dns_payload(packet, &offset);
	return dns_is_whole(skb, packet, length) ? dns_answer_at(skb, endpoint, track, offset, length) : DNS_MALFORMED;
}

/*
 * Makes the pod's own packet the answer that its question is refused (RFC 1035 section 4.1.1). Turning addresses and ports
 * around leaves the checksum as it is. @returns Whether that was done; the frame is then for the pod's end of the link.
 */
SUBPROGRAM int dns_refuse(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 macs[2 * MAC_LENGTH], turned[2 * MAC_LENGTH];
	__u8 ends[32], ports[4];
	__be16 before, after;
	__u32 flags_at;
	__u16 sum = 0;

	if (!packet || packet->protocol != IPPROTO_UDP)
		return 0;
	flags_at = packet->l4 + 8 + 2;
	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) < 0 || bpf_skb_load_bytes(skb, packet->l4, ports, 4) < 0 ||
	    bpf_skb_load_bytes(skb, flags_at, &before, 2) < 0 || bpf_skb_load_bytes(skb, packet->l4 + 6, &sum, 2) < 0)
		return 0;
	__builtin_memcpy(turned, macs + MAC_LENGTH, MAC_LENGTH);
	__builtin_memcpy(turned + MAC_LENGTH, macs, MAC_LENGTH);
	if (bpf_skb_store_bytes(skb, 0, turned, sizeof(turned), 0) < 0)
		return 0;
	if (packet->family == 4) {
		if (bpf_skb_store_bytes(skb, packet->l3 + 12, &packet->destination.words[3], 4, 0) < 0 ||
		    bpf_skb_store_bytes(skb, packet->l3 + 16, &packet->source.words[3], 4, 0) < 0)
			return 0;
	} else {
		__builtin_memcpy(ends, &packet->destination, 16);
		__builtin_memcpy(ends + 16, &packet->source, 16);
		if (bpf_skb_store_bytes(skb, packet->l3 + 8, ends, sizeof(ends), 0) < 0)
			return 0;
	}
	__builtin_memcpy(turned, ports + 2, 2);
	__builtin_memcpy(turned + 2, ports, 2);
	if (bpf_skb_store_bytes(skb, packet->l4, turned, 4, 0) < 0)
		return 0;
	after = before | bpf_htons(DNS_RESPONSE | DNS_REFUSED);
	if (sum != 0 && bpf_l4_csum_replace(skb, packet->l4 + 6, before, after, BPF_F_MARK_MANGLED_0 | 2) < 0)
		return 0;
	return bpf_skb_store_bytes(skb, flags_at, &after, 2, 0) == 0;
}
