/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS (RFC 1035), as far as policy is about names: what a pod asks, and what it is answered.
 *
 * A question is judged by the name that it is for. One that may go is noted, with its id, under its connection. An answer
 * to a question that is noted teaches the endpoint the addresses that it has for that name, before the pod has it: what
 * cannot be read or learnt does not come through. Whoever sends something else teaches nothing.
 *
 * Which addresses are the name's: those of A and AAAA records of the name itself and of the names that a chain of CNAMEs
 * leads to from it. Records of anybody else count for nothing.
 *
 * A message is read out of a copy, one byte a step, so that the verifier walks each step once. Only whole messages are
 * read: over UDP one that is not in fragments, over TCP one that is the whole payload of a segment, as it arrives here.
 */
#pragma once

#include "conntrack.h"
#include "names.h"

#define DNS_PORT 53
#define DNS_HEADER 12
#define DNS_NAME_MAX 254 /* of the labels with their lengths, without the root's */
#define DNS_STEPS 320	 /* more than a name has bytes and pointers */
#define DNS_SEGMENTS 8	 /* datagrams that the kernel may have joined */

#define DNS_RESPONSE 0x8000
#define DNS_OPCODE 0x7800
#define DNS_TRUNCATED 0x0200
#define DNS_REFUSED 5

#define DNS_A 1
#define DNS_CNAME 5
#define DNS_AAAA 28
#define DNS_INTERNET 1

#define DNS_QUERY_NS (30 * SECOND_NS)

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

enum dns_status {
	DNS_GOING = 0,
	DNS_READ = 1,
	DNS_BROKEN = 2,
};

/* track->dns: what the pod's packet was found to be. */
enum dns_read {
	DNS_NOT_LOOKED_AT = 0,
	DNS_OPAQUE = 1,	  /* no question that can be read */
	DNS_QUESTION = 2, /* to be noted once it is let through */
	DNS_IDLE = 3,	  /* nothing is asked or taught by it */
};

struct dns_context {
	struct dns_scratch *dns;
};

static __always_inline struct dns_scratch *dns_scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&dns_scratches, &zero);
}

static __always_inline __u32 dns_byte(const struct dns_scratch *dns, __u32 at)
{
	return dns->message[at & (DNS_MESSAGE - 1)];
}

static __always_inline __u32 dns_number(const struct dns_scratch *dns, __u32 at)
{
	return (dns_byte(dns, at) << 8) | dns_byte(dns, at + 1);
}

/* The class of a character of a label; NAME_CLASSES: of none that a pattern can be about. */
static __always_inline __u32 dns_class(__u32 byte)
{
	if (byte >= 'a' && byte <= 'z')
		return 13 + byte - 'a';
	if (byte >= '0' && byte <= '9')
		return 3 + byte - '0';
	return byte == '-' ? 1 : byte == '_' ? 2 : NAME_CLASSES;
}

/* One more character of the name's text, `class` 0 for a dot between labels. */
static __always_inline void dns_match(struct dns_scratch *dns, __u32 byte, __u32 class)
{
	struct name_state_key key = { .matcher = dns->matcher, .state = dns->state };
	struct name_state *state;

	dns->name[dns->text & (NAME_TEXT - 1)] = byte;
	dns->text++;
	if (key.state == 0)
		return;
	state = bpf_map_lookup_elem(&name_states, &key);
	asm volatile("" : "+r"(class)); /* the bound is on the register that is used */
	dns->state = state && class < NAME_CLASSES ? state->next[class] : 0;
}

static __always_inline long dns_broken(struct dns_scratch *dns)
{
	dns->status = DNS_BROKEN;
	return 1;
}

/* Two bytes that lead to where the rest of the name is: always further to the front, so that no name goes in circles. */
static __always_inline long dns_follow(struct dns_scratch *dns, __u32 at)
{
	__u32 target = dns_number(dns, at) & 0x3fff;

	if (at + 1 >= dns->length || dns->matcher != 0 || target < DNS_HEADER || target >= dns->limit)
		return dns_broken(dns);
	if (dns->end == 0)
		dns->end = at + 2;
	dns->limit = target;
	dns->at = target;
	return 0;
}

static long dns_name_step(__u32 index __attribute__((unused)), void *data)
{
	struct dns_scratch *dns = ((struct dns_context *)data)->dns;
	__u32 at = dns->at;
	__u32 byte;

	if (at >= dns->length)
		return dns_broken(dns);
	byte = dns_byte(dns, at);
	dns->at = at + 1;
	if (dns->left > 0) {
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
		dns->hash = (dns->hash ^ byte) * FNV_PRIME;
		dns->left--;
		if (dns->matcher != 0)
			dns_match(dns, byte, dns_class(byte));
		return 0;
	}
	if ((byte & 0xc0) == 0xc0)
		return dns_follow(dns, at);
	if (byte & 0xc0)
		return dns_broken(dns);
	dns->hash = (dns->hash ^ byte) * FNV_PRIME;
	if (byte == 0) {
		if (dns->matcher != 0 && dns->total == 0)
			dns_match(dns, '.', 0);
		if (dns->end == 0)
			dns->end = at + 1;
		dns->status = DNS_READ;
		return 1;
	}
	if (dns->matcher != 0 && dns->total != 0)
		dns_match(dns, '.', 0);
	dns->left = byte;
	dns->total += byte + 1;
	return dns->total > DNS_NAME_MAX ? dns_broken(dns) : 0;
}

/*
 * Reads the name at an offset: dns->hash is what tells it from others, dns->end where it ends.
 * @param matcher Of a question, whose name is in one piece: dns->state and dns->name come of it. 0: none.
 */
static __noinline bool dns_name(struct dns_scratch *dns, __u32 at, __u32 matcher)
{
	struct dns_context context = { .dns = dns };

	dns->hash = FNV_OFFSET;
	dns->at = at;
	dns->limit = at;
	dns->end = 0;
	dns->left = 0;
	dns->total = 0;
	dns->status = DNS_GOING;
	dns->matcher = matcher;
	bpf_loop(DNS_STEPS, dns_name_step, &context, 0);
	return dns->status == DNS_READ;
}

/* Copies the message of `length` bytes at `offset` of the packet. */
static __always_inline bool dns_copy(struct __sk_buff *skb, struct dns_scratch *dns, __u32 offset, __u32 length)
{
	dns->length = length;
	asm volatile("" : "+r"(length)); /* the bounds are on the register that is used */
	if (length < DNS_HEADER || length > DNS_MESSAGE)
		return false;
	if (bpf_skb_load_bytes(skb, offset, dns->message, length) < 0)
		return false;
	__builtin_memcpy(&dns->id, dns->message, 2);
	return true;
}

/* The one question of a message: its hash, the name in text, what the matcher says of it. */
static __noinline bool dns_read_question(struct dns_scratch *dns, __u32 matcher)
{
	struct name_accept_key key = { .matcher = matcher };
	struct name_state_key last = { .matcher = matcher };
	struct name_accept *accept;
	struct name_state *state;

	if (dns_number(dns, 4) != 1)
		return false;
	dns->state = 1;
	dns->text = 0;
	if (!dns_name(dns, DNS_HEADER, matcher) || dns->end + 4 > dns->length)
		return false;
	dns->name[dns->text & (NAME_TEXT - 1)] = 0;
	dns->chain[0] = dns->hash;
	dns->question = (dns->hash ^ dns_number(dns, dns->end)) * FNV_PRIME;
	dns->question = (dns->question ^ dns_number(dns, dns->end + 2)) * FNV_PRIME;
	dns->cursor = dns->end + 4;
	last.state = dns->state;
	state = bpf_map_lookup_elem(&name_states, &last);
	if (!state)
		return false;
	key.accept = state->accept;
	accept = bpf_map_lookup_elem(&name_accepts, &key);
	if (!accept)
		return false;
	dns->accept = *accept;
	return true;
}

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

/* How much the packet carries, and where. */
static __always_inline __u32 dns_payload(const struct packet *packet, __u32 *offset)
{
	__u32 end = packet->l3 + packet->length;

	*offset = packet->l4 + packet->l4_header;
	return packet->l4_header == 0 || *offset > end ? 0 : end - *offset;
}

/* Finds the message that is the whole payload. */
static __always_inline bool dns_whole(struct __sk_buff *skb, const struct packet *packet, __u32 *offset, __u32 *length)
{
	__be16 said = 0;

	*length = dns_payload(packet, offset);
	if (packet->protocol == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, packet->l4 + 4, &said, 2) < 0)
			return false;
		return bpf_ntohs(said) == *length + packet->l4_header;
	}
	if (*length < 2 || bpf_skb_load_bytes(skb, *offset, &said, 2) < 0)
		return false;
	*offset += 2;
	*length -= 2;
	return bpf_ntohs(said) == *length;
}

static __always_inline bool dns_read_query(struct __sk_buff *skb, const struct packet *packet, struct dns_scratch *dns,
					   __u32 matcher)
{
	__u32 offset, length;

	if ((packet->flags & PACKET_FRAGMENT) || (packet->protocol == IPPROTO_UDP && skb->gso_size != 0))
		return false;
	if (!dns_whole(skb, packet, &offset, &length) || !dns_copy(skb, dns, offset, length))
		return false;
	/* A question and nothing but what belongs to asking: neither answers nor authorities. */
	if ((dns_number(dns, 2) & (DNS_RESPONSE | DNS_OPCODE)) || dns_number(dns, 6) || dns_number(dns, 8))
		return false;
	return dns_read_question(dns, matcher);
}

/*
 * A packet that the pod sends to port 53. Says in `track` by which rule sets it is to be judged: those for its question;
 * of a TCP segment without payload, those for anything that may be asked; what cannot be read is judged as no question.
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
	if (packet->protocol == IPPROTO_TCP && !(packet->flags & PACKET_FRAGMENT) && dns_payload(packet, &offset) == 0) {
		track->dns = DNS_IDLE;
		if (asks) {
			track->sets[0] = matcher->admin_set;
			track->sets[1] = matcher->network_set;
			track->sets[2] = matcher->mesh_set;
		}
		return FORWARDED;
	}
	if (!dns_read_query(skb, packet, dns, number))
		return FORWARDED;
	track->dns = asks || dns->accept.count != 0 ? DNS_QUESTION : DNS_IDLE;
	if (asks) {
		track->sets[0] = dns->accept.admin_set;
		track->sets[1] = dns->accept.network_set;
		track->sets[2] = dns->accept.mesh_set;
	}
	return FORWARDED;
}

static __always_inline void dns_key_of(struct dns_query_key *key, const struct track *track,
					  const struct dns_scratch *dns)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->connection = track->key;
	key->id = dns->id;
}

/* Notes the question that dns_ask read and that was let through. */
SUBPROGRAM int dns_note(const struct track *track)
{
	struct dns_scratch *dns = dns_scratch_get();
	struct dns_query query = {};
	struct dns_query_key key;

	if (!dns || !track)
		return -1;
	dns_key_of(&key, track, dns);
	query.expires_ns = bpf_ktime_get_coarse_ns() + DNS_QUERY_NS;
	query.question = dns->question;
	return bpf_map_update_elem(&dns_queries, &key, &query, BPF_ANY);
}

/* What a question was denied for. */
static __always_inline enum drop_reason dns_denied(const struct track *track, enum drop_reason reason)
{
	if (!(track->flags & TRACK_BY_NAME) || (reason != POLICY_DENIED && reason != POLICY_DENIED_EXPLICIT))
		return reason;
	return track->dns == DNS_OPAQUE ? DNS_MALFORMED : DNS_DENIED;
}

/* Reads one record at dns->cursor. */
static long dns_record_step(__u32 index, void *data)
{
	struct dns_scratch *dns = ((struct dns_context *)data)->dns;
	struct dns_record *record = &dns->records[index & (DNS_RECORDS - 1)];
	__u32 at, length, type;

	if (index >= dns->count)
		return 1;
	if (!dns_name(dns, dns->cursor, 0))
		return 1;
	at = dns->end;
	type = dns_number(dns, at);
	length = dns_number(dns, at + 8);
	dns->cursor = at + 10 + length;
	if (dns->cursor > dns->length)
		return dns_broken(dns);
	record->owner = dns->hash;
	record->target = 0;
	record->offset = at + 10;
	record->seconds = (dns_number(dns, at + 4) << 16) | dns_number(dns, at + 6);
	record->type = type;
	record->class = dns_number(dns, at + 2);
	record->length = length;
	if (type != DNS_CNAME)
		return 0;
	if (!dns_name(dns, at + 10, 0))
		return 1;
	if (dns->end != dns->cursor)
		return dns_broken(dns);
	record->target = dns->hash;
	dns->aliases++;
	return 0;
}

/* Goes once more through the records, for the CNAME that leads on from the end of the chain. */
static long dns_chain_step(__u32 index, void *data)
{
	struct dns_scratch *dns = ((struct dns_context *)data)->dns;
	struct dns_record *record;
	__u32 count = dns->count;
	__u32 links = dns->links;

	if (count == 0 || links > DNS_LINKS)
		return 1;
	record = &dns->records[(index % count) & (DNS_RECORDS - 1)];
	if (record->type != DNS_CNAME || record->class != DNS_INTERNET || links == 0 ||
	    record->owner != dns->chain[(links - 1) & (DNS_LINKS - 1)])
		return 0;
	dns->chain[links <= DNS_LINKS ? links : 0] = record->target;
	dns->links = links + 1;
	return 0;
}

static __always_inline bool dns_is_linked(const struct dns_scratch *dns, __u64 owner)
{
	for (__u32 i = 0; i <= DNS_LINKS; i++) {
		if (i >= dns->links)
			return false;
		if (dns->chain[i] == owner)
			return true;
	}
	return false;
}

/* Writes down that the endpoint knows the address under the name that was asked for. @returns Whether there was room. */
static __noinline bool dns_learn(struct dns_scratch *dns, const struct addr *address, __u64 expires)
{
	struct name_key key = { .endpoint = dns->endpoint, .address = *address };
	struct name_value *value = bpf_map_lookup_elem(&names, &key);
	__u64 now = dns->now;

	if (!value) {
		__builtin_memset(&dns->fresh, 0, sizeof(dns->fresh));
		dns->fresh.learnt_ns = now;
		for (__u32 i = 0; i < NAME_PATTERNS; i++) {
			if (i >= dns->accept.count)
				break;
			dns->fresh.patterns[i] = dns->accept.patterns[i];
			dns->fresh.expires_ns[i] = expires;
		}
		__builtin_memcpy(dns->fresh.name, dns->name, NAME_TEXT);
		if (bpf_map_update_elem(&names, &key, &dns->fresh, BPF_NOEXIST) == 0)
			return true;
		value = bpf_map_lookup_elem(&names, &key);
		if (!value)
			return false;
	}
	for (__u32 i = 0; i < NAME_PATTERNS; i++) {
		if (i >= dns->accept.count)
			break;
		if (!name_add(value, dns->accept.patterns[i], now, expires))
			return false;
	}
	value->learnt_ns = now;
	__builtin_memcpy(value->name, dns->name, NAME_TEXT);
	/* Whoever collects what has expired may have taken it meanwhile. */
	return bpf_map_lookup_elem(&names, &key) == value;
}

static long dns_learn_step(__u32 index, void *data)
{
	struct dns_scratch *dns = ((struct dns_context *)data)->dns;
	struct dns_record *record = &dns->records[index & (DNS_RECORDS - 1)];
	struct config *settings = config_get();
	__u64 floor, ceiling, lifetime;
	struct addr address;
	__u32 at;

	if (index >= dns->count || !settings)
		return 1;
	if (record->class != DNS_INTERNET || !dns_is_linked(dns, record->owner))
		return 0;
	at = record->offset;
	if (record->type == DNS_A && record->length == 4) {
		__u32 word = (dns_number(dns, at) << 16) | dns_number(dns, at + 2);

		addr_set_ipv4(&address, bpf_htonl(word));
	} else if (record->type == DNS_AAAA && record->length == 16) {
		for (__u32 i = 0; i < 4; i++)
			address.words[i] = bpf_htonl((dns_number(dns, at + 4 * i) << 16) |
						     dns_number(dns, at + 4 * i + 2));
	} else {
		return 0;
	}
	if (!name_is_world(&address))
		return 0;
	floor = settings->name_floor_ns ?: NAME_DEFAULT_FLOOR_NS;
	ceiling = settings->name_ceiling_ns ?: NAME_DEFAULT_CEILING_NS;
	/* RFC 2181 section 8: with the highest bit set, it is 0. */
	lifetime = record->seconds >> 31 ? 0 : record->seconds * SECOND_NS;
	if (lifetime > ceiling)
		lifetime = ceiling;
	if (lifetime < floor)
		lifetime = floor;
	if (dns_learn(dns, &address, dns->now + lifetime))
		return 0;
	dns->full = 1;
	return 1;
}

/* Learns all that the answer, whose question was read, says of its name. */
static __noinline enum drop_reason dns_learn_all(struct dns_scratch *dns, __u32 endpoint)
{
	struct dns_context context = { .dns = dns };
	bool truncated = dns_number(dns, 2) & DNS_TRUNCATED;

	dns->now = bpf_ktime_get_coarse_ns();
	dns->endpoint = endpoint;
	dns->full = 0;
	dns->links = 1;
	dns->aliases = 0;
	dns->count = dns_number(dns, 6);
	if (dns->count > DNS_RECORDS)
		return DNS_MALFORMED;
	dns->status = DNS_READ;
	bpf_loop(DNS_RECORDS, dns_record_step, &context, 0);
	if (dns->status != DNS_READ) {
		/* Who gets a truncated answer asks again, by TCP: there is nothing to learn from this one. */
		return truncated ? FORWARDED : DNS_MALFORMED;
	}
	if (dns->aliases != 0)
		bpf_loop(dns->count * DNS_LINKS, dns_chain_step, &context, 0);
	bpf_loop(DNS_RECORDS, dns_learn_step, &context, 0);
	return dns->full ? NAMES_FULL : FORWARDED;
}

/* Whether the question that was read is one that went out on the connection. */
static __noinline bool dns_was_asked(const struct dns_scratch *dns, const struct track *track)
{
	struct dns_query_key key;
	struct dns_query *query;

	dns_key_of(&key, track, dns);
	query = bpf_map_lookup_elem(&dns_queries, &key);
	return query && query->question == dns->question && query->expires_ns >= bpf_ktime_get_coarse_ns();
}

/* One answer, at an offset of a packet that came in from port 53. */
SUBPROGRAM enum drop_reason dns_answer(struct __sk_buff *skb, const struct endpoint *endpoint, const struct track *track,
				       __u32 offset, __u32 length)
{
	struct dns_scratch *dns = dns_scratch_get();
	__u32 matcher, id;

	if (!dns || !endpoint || !track)
		return DNS_MALFORMED;
	matcher = endpoint->names;
	id = endpoint->id;
	if (!dns_copy(skb, dns, offset, length) || !(dns_number(dns, 2) & DNS_RESPONSE) ||
	    (dns_number(dns, 2) & DNS_OPCODE) || !dns_read_question(dns, matcher))
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
	if (packet->protocol == IPPROTO_TCP && dns_payload(packet, &offset) == 0)
		return FORWARDED;
	if (packet->protocol == IPPROTO_UDP && skb->gso_size != 0) {
		/* Several, joined on their way. */
		__u32 each = skb->gso_size;

		length = dns_payload(packet, &offset);
		for (int i = 0; i < DNS_SEGMENTS; i++) {
			reason = dns_answer(skb, endpoint, track, offset, length < each ? length : each);
			if (reason || length <= each)
				return reason;
			offset += each;
			length -= each;
		}
		return DNS_MALFORMED;
	}
	if (!dns_whole(skb, packet, &offset, &length))
		return DNS_MALFORMED;
	return dns_answer(skb, endpoint, track, offset, length);
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
