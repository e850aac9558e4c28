/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What an answer teaches. Which addresses are a name's: those of A and AAAA records of the name that was asked for, and of
 * the names that a chain of CNAMEs leads to from it. Records of anybody else count for nothing.
 */
#pragma once

#include "conntrack.h"
#include "dns_message.h"
#include "names.h"

#define DNS_TRUNCATED 0x0200
#define DNS_A 1
#define DNS_CNAME 5
#define DNS_AAAA 28
#define DNS_INTERNET 1

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
