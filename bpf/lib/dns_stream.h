/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS over TCP (RFC 7766): messages with their lengths before them, in any pieces. Pieces pass as they come, since nobody can
 * do anything with them; what is judged, and what teaches, is the piece that a message ends in.
 *
 * Who asks is not to be trusted with the stream: it may send the same bytes twice and differently, or such as the server
 * does not get. So a pod's stream is followed from its handshake on, in order, and what comes again must be what came.
 * Who answers is trusted with the name that it answers for, and gains nothing by another order than the pod's.
 */
#pragma once

#include "dns_learn.h"

#define DNS_RESPONSE 0x8000
#define DNS_OPCODE 0x7800
#define DNS_TOLD_AT_ONCE 8 /* messages that end in one segment */

/* A length that is 1 to `most` already, a power of two, made so that the verifier sees it. */
#define DNS_WITHIN(length, most)                            \
	do {                                                \
		asm volatile("" : "+r"(length));            \
		(length) = (((length)-1) & ((most)-1)) + 1; \
	} while (0)

/* How much the packet carries, and where. */
static __always_inline __u32 dns_payload(const struct packet *packet, __u32 *offset)
{
	__u32 end = packet->l3 + packet->length;

	*offset = packet->l4 + packet->l4_header;
	return packet->l4_header == 0 || *offset > end ? 0 : end - *offset;
}

static __always_inline bool dns_is_whole(struct __sk_buff *skb, const struct packet *packet, __u32 length)
{
	__be16 said = 0;

	return bpf_skb_load_bytes(skb, packet->l4 + 4, &said, 2) == 0 && bpf_ntohs(said) == length + packet->l4_header;
}

static __always_inline bool dns_sequence(struct __sk_buff *skb, const struct packet *packet, __u32 *sequence)
{
	__be32 said;

	if (bpf_skb_load_bytes(skb, packet->l4 + 4, &said, sizeof(said)) < 0)
		return false;
	*sequence = bpf_ntohl(said);
	return true;
}

/* The message in dns->message, as a question and nothing but what belongs to asking: neither answers nor authorities. */
static __noinline bool dns_read_query(struct dns_scratch *dns, __u32 matcher)
{
	if ((dns_number(dns, 2) & (DNS_RESPONSE | DNS_OPCODE)) || dns_number(dns, 6) || dns_number(dns, 8))
		return false;
	return dns_read_question(dns, matcher);
}

/* The question that was read is one of those that are asked with this packet. */
static __always_inline void asking_add(struct dns_scratch *dns)
{
	struct dns_asked *asked = &dns->asked[dns->asked_count & (DNS_AT_ONCE - 1)];

	asked->question = dns->question;
	asked->id = dns->id;
	dns->asked_count++;
}

/* More than a window: a stream that begins so far from where another was has nothing that one is waiting for. */
#define ASKING_APART (1U << 23)

/*
 * A stream begins. One that lives is not begun again by who would like to be somewhere else in it; nor is one that was
 * closed by a reset, which the server may not have taken for one.
 */
SUBPROGRAM int asking_open(struct __sk_buff *skb, const struct packet *packet, const struct ct_key *connection)
{
	struct dns_scratch *dns = dns_scratch_get();
	struct dns_asking *before;
	struct ct_entry *entry;
	__u32 sequence, apart;
	struct ct_key key;

	if (!dns || !packet || !connection || !dns_sequence(skb, packet, &sequence))
		return -1;
	key = *connection;
	entry = bpf_map_lookup_elem(&ct, &key);
	if (entry && entry->state != CT_OPENING && entry->expires_ns >= bpf_ktime_get_coarse_ns()) {
		before = bpf_map_lookup_elem(&dns_askings, &key);
		if (!before || entry->state != CT_CLOSED)
			return -1;
		apart = sequence + 1 - before->next;
		if (before->next != before->base && apart + ASKING_APART < 2 * ASKING_APART)
			return -1;
	}
	__builtin_memset(dns->stream, 0, sizeof(struct dns_asking));
	((struct dns_asking *)dns->stream)->next = sequence + 1;
	((struct dns_asking *)dns->stream)->base = sequence + 1;
	return bpf_map_update_elem(&dns_askings, &key, dns->stream, BPF_ANY);
}

struct asking_compare {
	struct dns_scratch *dns;
	__u32 at; /* in the stream */
};

static long asking_compare_step(__u32 index, struct asking_compare *compare)
{
	struct dns_scratch *dns = compare->dns;

	if (dns->stream[(compare->at + index) & (DNS_HISTORY - 1)] != dns->message[index & (DNS_HISTORY - 1)])
		dns->broken = 1;
	return dns->broken ? 1 : 0;
}

/* Puts what is known of the stream, and what the segment adds to it, into dns->stream. @returns Whether that can be. */
static __always_inline bool asking_gather(struct __sk_buff *skb, const struct packet *packet,
					  const struct ct_key *connection, struct dns_scratch *dns)
{
	struct asking_compare compare = { .dns = dns };
	__u32 offset, length = dns_payload(packet, &offset);
	__u32 sequence, known, again, fresh, copied;
	struct ct_key key = *connection;
	struct dns_asking *asking = bpf_map_lookup_elem(&dns_askings, &key);

	if (!asking || (packet->tcp_flags & TCP_SYN) || !dns_sequence(skb, packet, &sequence))
		return false;
	dns->before = *(volatile __u32 *)&asking->next;
	dns->base = *(volatile __u32 *)&asking->base;
	dns->begin = *(volatile __u32 *)&asking->message;
	dns->broken = 0;
	known = dns->before - dns->base;
	again = dns->before - sequence;
	if (known > DNS_HISTORY || dns->begin > known || (__s32)again < 0 || again > known || length == 0)
		return false;
	if (known != 0) {
		copied = known;
		DNS_WITHIN(copied, DNS_HISTORY);
		if (bpf_probe_read_kernel(dns->stream, copied, asking->bytes) < 0)
			return false;
	}
	fresh = length > again ? length - again : 0;
	if (again != 0) {
		copied = length < again ? length : again;
		compare.at = known - again;
		DNS_WITHIN(copied, DNS_HISTORY);
		if (bpf_skb_load_bytes(skb, offset, dns->message, copied) < 0)
			return false;
		bpf_loop(copied, asking_compare_step, &compare, 0);
		if (dns->broken)
			return false;
	}
	if (fresh > DNS_HISTORY)
		return false;
	if (fresh != 0) {
		copied = fresh;
		DNS_WITHIN(copied, DNS_HISTORY);
		if (bpf_skb_load_bytes(skb, offset + again, dns->stream + (known & (2 * DNS_HISTORY - 1)), copied) < 0)
			return false;
	}
	dns->bytes = known + fresh;
	return true;
}

struct asking_context {
	struct dns_scratch *dns;
};

/* One message of the stream, if it ends there. */
static long asking_step(__u32 index, struct asking_context *context)
{
	struct dns_scratch *dns = context->dns;
	__u32 begin = dns->begin & (2 * DNS_HISTORY - 1);
	__u32 left = dns->bytes - dns->begin;
	__u32 length, copied;
	__u32 sets[3];

	if (left < 2)
		return 1;
	length = dns->stream[begin] << 8 | dns->stream[begin + 1];
	dns->broken = length < DNS_HEADER || length > DNS_HISTORY - 2;
	if (dns->broken || left < 2 + length)
		return 1;
	copied = length;
	DNS_WITHIN(copied, DNS_HISTORY);
	__builtin_memcpy(sets, &dns->accept, sizeof(sets));
	dns->length = length;
	dns->broken = dns->asked_count >= DNS_AT_ONCE ||
		      bpf_probe_read_kernel(dns->message, copied, dns->stream + begin + 2) < 0;
	if (dns->broken)
		return 1;
	__builtin_memcpy(&dns->id, dns->message, 2);
	/* Policy is asked once about a packet: about what all of its questions have in common. */
	dns->broken = !dns_read_query(dns, dns->matching) ||
		      (index != 0 && (sets[0] != dns->accept.admin_set || sets[1] != dns->accept.network_set ||
				      sets[2] != dns->accept.mesh_set));
	if (dns->broken)
		return 1;
	asking_add(dns);
	dns->begin += 2 + length;
	return 0;
}

/* Reads the questions that end in what was gathered. @returns Whether they can be read. */
static __always_inline bool asking_read(struct dns_scratch *dns)
{
	struct asking_context context = { .dns = dns };

	bpf_loop(DNS_AT_ONCE + 1, asking_step, &context, 0);
	return !dns->broken;
}

/*
 * The segment that was gathered is let through: the stream goes on behind it. While that is written down nobody else's
 * segment is the stream's next. @returns Whether none came in between.
 */
static __always_inline bool asking_commit(const struct ct_key *connection, struct dns_scratch *dns)
{
	struct ct_key key = *connection;
	struct dns_asking *asking = bpf_map_lookup_elem(&dns_askings, &key);
	__u32 known = dns->before - dns->base;
	__u32 from = 0, kept = dns->bytes;

	if (!asking)
		return false;
	if (kept == known)
		return true;
	if (kept > DNS_HISTORY) {
		/* What was asked before this segment is forgotten, but for the beginning of what it may end. */
		from = dns->begin < known ? dns->begin : known;
		if (kept - from > DNS_HISTORY)
			from = dns->begin;
		kept -= from;
	}
	if (kept > DNS_HISTORY ||
	    __sync_val_compare_and_swap(&asking->next, dns->before, dns->before ^ 0x80000000U) != dns->before)
		return false;
	if (kept != 0) {
		DNS_WITHIN(kept, DNS_HISTORY);
		bpf_probe_read_kernel(asking->bytes, kept, dns->stream + (from & (2 * DNS_HISTORY - 1)));
	}
	*(volatile __u32 *)&asking->base = dns->base + from;
	*(volatile __u32 *)&asking->message = dns->begin - from;
	__sync_val_compare_and_swap(&asking->next, dns->before ^ 0x80000000U, dns->base + dns->bytes);
	return true;
}

/* Gathers a segment of answers. @returns 1: there is something new in it; 0: nothing; -1: it does not belong here. */
static __always_inline int telling_gather(struct __sk_buff *skb, const struct packet *packet,
					  const struct ct_key *connection, struct dns_scratch *dns)
{
	__u32 offset, length = dns_payload(packet, &offset);
	struct dns_telling fresh = {};
	struct ct_key key = *connection;
	struct dns_telling *telling;
	struct dns_piece *piece;
	__u32 sequence, again;

	if (length == 0 && !(packet->tcp_flags & TCP_SYN))
		return 0;
	if (!dns_sequence(skb, packet, &sequence))
		return -1;
	if (packet->tcp_flags & TCP_SYN) {
		fresh.next = sequence + 1;
		bpf_map_update_elem(&dns_tellings, &key, &fresh, BPF_ANY);
		return length == 0 ? 0 : -1;
	}
	telling = bpf_map_lookup_elem(&dns_tellings, &key);
	if (!telling)
		return -1;
	dns->before = *(volatile __u32 *)&telling->next;
	again = dns->before - sequence;
	if ((__s32)again < 0)
		return -1;
	if (again >= length)
		return 0;
	dns->offset = offset + again;
	dns->rest = length - again;
	dns->added = dns->rest;
	dns->have = telling->have;
	__builtin_memcpy(dns->prefix, telling->prefix, 2);
	if (dns->have > 2) {
		piece = bpf_map_lookup_elem(&dns_pieces, &key);
		if (!piece || bpf_probe_read_kernel(dns->message, sizeof(*piece), piece->bytes) < 0)
			return -1;
	}
	return 1;
}

/* Takes the next message off the segment into dns->message. @returns Its length; 0: it does not end here; -1: it is none. */
SUBPROGRAM int telling_next(struct __sk_buff *skb)
{
	struct dns_scratch *dns = dns_scratch_get();
	__u32 have, length, left, taken;

	if (!dns)
		return -1;
	for (int i = 0; i < 2; i++) {
		if (dns->have >= 2 || dns->rest == 0)
			break;
		if (bpf_skb_load_bytes(skb, dns->offset, &dns->prefix[dns->have & 1], 1) < 0)
			return -1;
		dns->have++;
		dns->offset++;
		dns->rest--;
	}
	if (dns->have < 2 || dns->rest == 0)
		return 0;
	length = dns->prefix[0] << 8 | dns->prefix[1];
	have = dns->have - 2;
	if (length < DNS_HEADER || length > DNS_MESSAGE || have >= length)
		return -1;
	left = length - have;
	taken = dns->rest < left ? dns->rest : left;
	dns->offset += taken;
	dns->rest -= taken;
	dns->have += taken;
	left = dns->offset - taken;
	DNS_WITHIN(taken, DNS_MESSAGE);
	if (bpf_skb_load_bytes(skb, left, dns->message + (have & (DNS_MESSAGE - 1)), taken) < 0)
		return -1;
	if (dns->have - 2 < length)
		return 0;
	dns->length = length;
	dns->have = 0;
	__builtin_memcpy(&dns->id, dns->message, 2);
	return length;
}

/* The segment that was gathered is let through. @returns Whether none came in between, and its last piece has room. */
static __always_inline bool telling_commit(const struct ct_key *connection, struct dns_scratch *dns)
{
	struct ct_key key = *connection;
	struct dns_telling *telling = bpf_map_lookup_elem(&dns_tellings, &key);

	if (!telling || *(volatile __u32 *)&telling->next != dns->before)
		return false;
	if (dns->have > 2 && bpf_map_update_elem(&dns_pieces, &key, dns->message, BPF_ANY) < 0)
		return false;
	telling->have = dns->have;
	__builtin_memcpy(telling->prefix, dns->prefix, 2);
	*(volatile __u32 *)&telling->next = dns->before + dns->added;
	return true;
}
