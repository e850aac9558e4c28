/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The policy decision of one endpoint in one direction: up to three rule sets, one after the other. The network gate's
 * admin level decides or leaves it to the rest of that gate; what the network gate allows, the mesh gate must allow too.
 * The number of lookups depends on which port-prefix lengths the rule sets use, never on how many rules they have.
 *
 * Rules that ask something of HTTP requests stand beside the others: at a key, the first of them that the request is
 * counts as one more entry. Of a connection nobody knows its requests yet; so it is asked twice, once as if they were all
 * that rules deny and nothing that they allow (what is allowed so is allowed whatever they are), and once as if they were
 * the other way round (what is denied so is denied whatever they are).
 *
 * An entry may leave it to the proxy, which reads what is said (VERDICT_PROXY): then the whole is the proxy's to judge,
 * unless the mesh gate denies it outright. Of entries with one precedence the denial counts, else the allowance.
 */
#pragma once

#include "maps.h"

enum policy_request {
	REQUEST_STRICT = 0,  /* nobody knows, and the worst is assumed */
	REQUEST_LENIENT = 1, /* nobody knows, and the best is assumed */
	REQUEST_READ = 2,    /* http_bits has what it is */
};

enum policy_asked {
	ASKED_REQUESTS = 1, /* rules about requests */
	ASKED_PROXY = 2,    /* an entry that leaves it to the proxy, whatever came of it */
};

/* As http_bits is indexed. */
enum policy_stage {
	STAGE_ADMIN = 0,
	STAGE_NETWORK = 1,
	STAGE_MESH = 2,
};

struct policy_query {
	__u32 admin_set;   /* 0: none */
	__u32 network_set; /* 0: not loaded */
	__u32 mesh_set;    /* 0: none */
	__u32 identity;    /* of the other end */
	__u16 port; /* the destination's, host order; of ICMP, type << 8 | code */
	__u8 protocol;
	__u8 request;   /* enum policy_request */
	__u32 names;    /* how many patterns the other end's address is known under: in name_probes */
	__u32 requests; /* out: what was among those asked: enum policy_asked */
	__u32 rule;  /* out: the rule that decided */
	__u32 flags; /* out: POLICY_… of that rule, or of the isolation that denied */
	__u32 name;  /* out: the pattern that the rule was found by, 0: by who is there */
};

/* One rule set, and what it says. */
struct policy_probe {
	__u32 set;
	__u32 identity;
	__u16 port;
	__u8 protocol;
	__u8 request;
	__u8 stage;
	__u8 names;
	__u8 requests; /* out: enum policy_asked, of this set and those before */
	__u8 flags; /* out */
	__u32 rule;  /* out */
	__u32 name;  /* out */
};

struct policy_best {
	/* What is asked. */
	__u32 matcher;
	__u8 request;
	__u8 stage;
	/* The best so far. */
	__u8 verdict; /* 0: no entry matched yet */
	__u8 flags;
	__u32 precedence;
	__u32 rule;
	__u32 identity; /* of the entry */
	__u32 proxy;	/* ASKED_PROXY, where there was such an entry */
};

/* What policy_ask says where a set leaves it to whatever comes after it; no reason to drop has this number. */
#define POLICY_UNDECIDED 255
/* What policy_ask and policy_decide say where it is for the proxy to judge; no reason to drop either. */
#define POLICY_PROXIED 254

static __always_inline void policy_prefer(struct policy_best *best, __u32 precedence, __u32 verdict, __u32 rule,
					  __u32 flags, __u32 identity)
{
	if (best->verdict != 0 && precedence < best->precedence)
		return;
	if (best->verdict != 0 && precedence == best->precedence && verdict != VERDICT_DENY &&
	    !(verdict == VERDICT_ALLOW && best->verdict == VERDICT_PROXY))
		return;
	best->precedence = precedence;
	best->verdict = verdict;
	best->rule = rule;
	best->flags = flags;
	best->identity = identity;
}

/*
 * The place of the lowest bit that is set: as many bits as are below it. The compiler has no instruction for either, and
 * the verifier would walk each way through branches.
 */
static __always_inline __u32 policy_low_bit(__u64 bits)
{
	__u64 below = (bits & -bits) - 1;

	below -= (below >> 1) & 0x5555555555555555ULL;
	below = (below & 0x3333333333333333ULL) + ((below >> 2) & 0x3333333333333333ULL);
	below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (__u32)((below * 0x0101010101010101ULL) >> 56);
}

/* The lowest number in both sets, HTTP_ALTERNATIVES where there is none. */
static __always_inline __u32 policy_first_bit(const struct http_bits *a, const struct http_bits *b)
{
	for (__u32 word = 0; word < HTTP_WORDS; word++) {
		__u64 common = a->bits[word] & b->bits[word];

		if (common)
			return word * 64 + policy_low_bit(common);
	}
	return HTTP_ALTERNATIVES;
}

/* The first of the alternatives at a key that the request is. What cannot be looked up denies. */
static __always_inline void policy_consider_requests(__u32 cell, __u32 identity, struct policy_best *best)
{
	struct http_bits *standing = bpf_map_lookup_elem(&http_cells, &cell);
	struct http_alternative *first;
	struct http_matcher *matcher;
	struct http_bits *those;
	__u32 index, number;

	index = best->matcher;
	matcher = bpf_map_lookup_elem(&http_matchers, &index);
	if (!standing || !matcher || index == 0)
		goto unknown;
	if (best->request == REQUEST_READ) {
		index = best->stage;
		those = bpf_map_lookup_elem(&http_bits, &index);
	} else {
		those = best->request == REQUEST_LENIENT ? &matcher->lenient : &matcher->strict;
	}
	if (!those)
		goto unknown;
	number = policy_first_bit(standing, those);
	if (number >= HTTP_ALTERNATIVES)
		return;
	index = matcher->first_alternative + number;
	first = bpf_map_lookup_elem(&http_alternatives, &index);
	if (!first || number >= matcher->alternatives)
		goto unknown;
	policy_prefer(best, first->precedence, first->verdict, first->rule, first->flags, identity);
	return;
unknown:
	policy_prefer(best, 0xffffffff, VERDICT_DENY, RULE_NONE, 0, identity);
}

/* The entry at a key, if there is one. Walked by the verifier once, not once for each of the many places that ask. */
SUBPROGRAM int policy_consider(const struct policy_key *at, struct policy_best *best)
{
	struct policy_entry *entry;
	struct policy_key key;

	if (!at || !best)
		return -1;
	key = *at;
	entry = bpf_map_lookup_elem(&policy, &key);
	if (!entry)
		return 0;
	if (entry->cell != 0)
		policy_consider_requests(entry->cell, key.identity, best);
	if (entry->verdict == VERDICT_PROXY)
		best->proxy = ASKED_PROXY;
	if (entry->verdict != 0)
		policy_prefer(best, entry->precedence, entry->verdict, entry->rule, entry->flags, key.identity);
	return 0;
}

static __always_inline bool policy_is_ported(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP_NUMBER ||
	       protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6_NUMBER;
}

/* All entries of one identity, or pattern, that match. */
SUBPROGRAM int policy_ask_identity(const struct policy_probe *probe, __u32 probes, __u32 identity,
				   struct policy_best *best)
{
	struct policy_key key = {};

	if (!probe || !best)
		return -1;
	key.set = probe->set;
	key.identity = identity;
	if (probes & PROBE_ANY_PROTOCOL)
		policy_consider(&key, best);
	if (!policy_is_ported(probe->protocol))
		return 0;
	key.protocol = probe->protocol;
	for (__u32 length = 0; length <= 16; length++) {
		if (!(probes & (1U << length)))
			continue;
		key.port = probe->port & (__u16)(0xffff0000U >> length);
		key.port_length = length;
		policy_consider(&key, best);
	}
	return 0;
}

/* What the address was learnt under stands beside who is there. */
SUBPROGRAM int policy_ask_names(const struct policy_probe *probe, __u32 probes, struct policy_best *best)
{
	__u32 zero = 0;
	struct name_probe *known = bpf_map_lookup_elem(&name_probes, &zero);

	if (!probe || !best || !known)
		return -1;
	for (__u32 i = 0; i < NAME_PATTERNS + 1 && i < probe->names; i++)
		policy_ask_identity(probe, probes, known->patterns[i], best);
	return 0;
}

/* Asks one rule set. An entry with a verdict that is not known denies; one that passes is as none. */
SUBPROGRAM int policy_ask(struct policy_probe *probe)
{
	struct policy_best best = {};
	struct rule_set *set;
	__u32 id, probes;

	if (!probe)
		return UNKNOWN_RULE_SET;
	probe->rule = RULE_NONE;
	probe->flags = 0;
	probe->name = 0;
	id = probe->set;
	set = bpf_map_lookup_elem(&rule_sets, &id);
	if (!set)
		return UNKNOWN_RULE_SET;
	probes = set->probes;
	best.matcher = set->matcher;
	best.request = probe->request;
	best.stage = probe->stage;
	if (best.matcher != 0)
		probe->requests |= ASKED_REQUESTS;
	policy_ask_identity(probe, probes, probe->identity, &best);
	policy_ask_identity(probe, probes, IDENTITY_ANY, &best);
	if (probe->names != 0)
		policy_ask_names(probe, probes, &best);
	probe->requests |= best.proxy;
	if (best.verdict != 0 && best.verdict != VERDICT_PASS) {
		probe->rule = best.rule;
		probe->flags = best.flags;
		probe->name = best.identity >= IDENTITY_FIRST_NAME ? best.identity : 0;
		if (best.verdict == VERDICT_PROXY)
			return POLICY_PROXIED;
		return best.verdict == VERDICT_ALLOW ? FORWARDED : POLICY_DENIED_EXPLICIT;
	}
	if (set->flags & RULE_SET_ISOLATED) {
		probe->rule = set->rule;
		probe->flags = set->flags & POLICY_OPTIONS;
		return POLICY_DENIED;
	}
	return POLICY_UNDECIDED;
}

static __always_inline int policy_ask_set(struct policy_probe *probe, struct policy_query *query, __u32 set, __u32 stage)
{
	int answer;

	probe->set = set;
	probe->stage = stage;
	answer = policy_ask(probe);
	query->rule = probe->rule;
	query->flags = probe->flags;
	query->requests = probe->requests;
	if (probe->name != 0)
		query->name = probe->name;
	return answer;
}

static __always_inline bool policy_lets(int answer)
{
	return answer == POLICY_UNDECIDED || answer == FORWARDED || answer == POLICY_PROXIED;
}

/* FORWARDED, POLICY_PROXIED, or why not. Where both gates let it, the rule is the first one's that has one. */
SUBPROGRAM enum drop_reason policy_decide(struct policy_query *query)
{
	struct policy_probe probe = {};
	int answer = POLICY_UNDECIDED;
	__u32 rule, flags;
	int network;

	if (!query)
		return UNKNOWN_RULE_SET;
	query->rule = RULE_NONE;
	query->flags = 0;
	query->name = 0;
	query->requests = 0;
	if (query->network_set == 0)
		return ENDPOINT_NOT_READY;
	probe.identity = query->identity;
	probe.port = query->port;
	probe.protocol = query->protocol;
	probe.names = query->names;
	probe.request = query->request;
	if (query->admin_set != 0)
		answer = policy_ask_set(&probe, query, query->admin_set, STAGE_ADMIN);
	if (answer == POLICY_UNDECIDED)
		answer = policy_ask_set(&probe, query, query->network_set, STAGE_NETWORK);
	if (!policy_lets(answer))
		return answer;
	network = answer == POLICY_PROXIED ? POLICY_PROXIED : FORWARDED;
	if (query->mesh_set == 0)
		return network;
	rule = query->rule;
	flags = query->flags;
	answer = policy_ask_set(&probe, query, query->mesh_set, STAGE_MESH);
	if (!policy_lets(answer))
		return answer;
	if (rule != RULE_NONE) {
		query->rule = rule;
		query->flags = flags;
	}
	return answer == POLICY_PROXIED ? POLICY_PROXIED : network;
}
