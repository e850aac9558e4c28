/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The policy decision of one endpoint in one direction: up to three rule sets, one after the other. The network gate's
 * admin level decides or leaves it to the rest of that gate; what the network gate allows, the mesh gate must allow too.
 * The number of lookups depends on which port-prefix lengths the rule sets use, never on how many rules they have.
 */
#pragma once

#include "maps.h"

struct policy_query {
	__u32 admin_set;   /* 0: none */
	__u32 network_set; /* 0: not loaded */
	__u32 mesh_set;    /* 0: none */
	__u32 identity;    /* of the other end */
	__u16 port; /* the destination's, host order; of ICMP, type << 8 | code */
	__u8 protocol;
	__u8 pad;
	__u32 rule;  /* out: the rule that decided */
	__u32 flags; /* out: POLICY_… of that rule, or of the isolation that denied */
};

/* One rule set, and what it says. */
struct policy_probe {
	__u32 set;
	__u32 identity;
	__u16 port;
	__u8 protocol;
	__u8 pad;
	__u32 rule;  /* out */
	__u32 flags; /* out */
};

struct policy_best {
	__u32 precedence;
	__u32 rule;
	__u32 verdict; /* 0: no entry matched yet */
	__u32 flags;
};

/* What policy_ask says where a set leaves it to whatever comes after it; no reason to drop has this number. */
#define POLICY_UNDECIDED 255

static __always_inline void policy_consider(const struct policy_key *key, struct policy_best *best)
{
	struct policy_entry *entry = bpf_map_lookup_elem(&policy, key);

	if (!entry)
		return;
	if (best->verdict != 0 && entry->precedence < best->precedence)
		return;
	if (best->verdict != 0 && entry->precedence == best->precedence && entry->verdict != VERDICT_DENY)
		return;
	best->precedence = entry->precedence;
	best->rule = entry->rule;
	best->verdict = entry->verdict;
	best->flags = entry->flags;
}

/* Asks one rule set. An entry with a verdict that is not known denies; one that passes is as none. */
SUBPROGRAM int policy_ask(struct policy_probe *probe)
{
	struct policy_best best = {};
	struct policy_key key = {};
	struct rule_set *set;
	__u32 id, probes;
	bool ported;

	if (!probe)
		return UNKNOWN_RULE_SET;
	probe->rule = RULE_NONE;
	probe->flags = 0;
	id = probe->set;
	set = bpf_map_lookup_elem(&rule_sets, &id);
	if (!set)
		return UNKNOWN_RULE_SET;
	probes = set->probes;
	key.set = id;
	ported = probe->protocol == IPPROTO_TCP || probe->protocol == IPPROTO_UDP ||
		 probe->protocol == IPPROTO_SCTP_NUMBER || probe->protocol == IPPROTO_ICMP ||
		 probe->protocol == IPPROTO_ICMPV6_NUMBER;
	if (probes & PROBE_ANY_PROTOCOL) {
		key.identity = probe->identity;
		policy_consider(&key, &best);
		key.identity = IDENTITY_ANY;
		policy_consider(&key, &best);
	}
	if (ported) {
		key.protocol = probe->protocol;
		for (__u32 length = 0; length <= 16; length++) {
			if (!(probes & (1U << length)))
				continue;
			key.port = probe->port & (__u16)(0xffff0000U >> length);
			key.port_length = length;
			key.identity = probe->identity;
			policy_consider(&key, &best);
			key.identity = IDENTITY_ANY;
			policy_consider(&key, &best);
		}
	}
	if (best.verdict != 0 && best.verdict != VERDICT_PASS) {
		probe->rule = best.rule;
		probe->flags = best.flags;
		return best.verdict == VERDICT_ALLOW ? FORWARDED : POLICY_DENIED_EXPLICIT;
	}
	if (set->flags & RULE_SET_ISOLATED) {
		probe->rule = set->rule;
		probe->flags = set->flags & POLICY_OPTIONS;
		return POLICY_DENIED;
	}
	return POLICY_UNDECIDED;
}

static __always_inline int policy_ask_set(struct policy_probe *probe, struct policy_query *query, __u32 set)
{
	int answer;

	probe->set = set;
	answer = policy_ask(probe);
	query->rule = probe->rule;
	query->flags = probe->flags;
	return answer;
}

/* Where both gates allow, the rule is the first one's that has one. */
SUBPROGRAM enum drop_reason policy_decide(struct policy_query *query)
{
	struct policy_probe probe = {};
	int answer = POLICY_UNDECIDED;
	__u32 rule, flags;

	if (!query)
		return UNKNOWN_RULE_SET;
	query->rule = RULE_NONE;
	query->flags = 0;
	if (query->network_set == 0)
		return ENDPOINT_NOT_READY;
	probe.identity = query->identity;
	probe.port = query->port;
	probe.protocol = query->protocol;
	if (query->admin_set != 0)
		answer = policy_ask_set(&probe, query, query->admin_set);
	if (answer == POLICY_UNDECIDED)
		answer = policy_ask_set(&probe, query, query->network_set);
	if (answer != POLICY_UNDECIDED && answer != FORWARDED)
		return answer;
	if (query->mesh_set == 0)
		return FORWARDED;
	rule = query->rule;
	flags = query->flags;
	answer = policy_ask_set(&probe, query, query->mesh_set);
	if (answer != POLICY_UNDECIDED && answer != FORWARDED)
		return answer;
	if (rule != RULE_NONE) {
		query->rule = rule;
		query->flags = flags;
	}
	return FORWARDED;
}
