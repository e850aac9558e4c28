/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A DNS message (RFC 1035), read out of a copy, one byte a step, so that the verifier walks each step once. A name is told
 * from others by a hash over its labels in lower case; the name of a question also goes through the DFA of a matcher.
 */
#pragma once

#include "maps.h"

#define DNS_HEADER 12
#define DNS_NAME_MAX 254 /* of the labels with their lengths, without the root's */
#define DNS_STEPS 320	 /* more than a name has bytes and pointers */

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

enum dns_status {
	DNS_GOING = 0,
	DNS_READ = 1,
	DNS_BROKEN = 2,
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
