/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The policy decision of one endpoint in one direction. The number of lookups depends on which port-prefix lengths the
 * rule set uses, never on how many rules it has.
 */
#pragma once

#include "maps.h"

struct policy_query {
	__u32 set;
	__u32 identity; /* of the other end */
	__u32 default_deny;
	__u16 port; /* the destination's, host order */
	__u8 protocol;
	__u8 pad;
	__u32 rule; /* out: the rule that decided */
};

struct policy_best {
	__u32 precedence;
	__u32 rule;
	__u32 verdict; /* 0: no entry matched yet */
};

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
}

/* An entry with a verdict that is not known denies. */
SUBPROGRAM enum drop_reason policy_decide(struct policy_query *query)
{
	struct policy_best best = {};
	struct policy_key key = {};
	struct rule_set *set;
	__u32 id, probes;
	bool ported;

	if (!query)
		return UNKNOWN_RULE_SET;
	query->rule = RULE_NONE;
	if (query->set == 0)
		return ENDPOINT_NOT_READY;
	id = query->set;
	set = bpf_map_lookup_elem(&rule_sets, &id);
	if (!set)
		return UNKNOWN_RULE_SET;
	probes = set->probes;
	key.set = id;
	ported = query->protocol == IPPROTO_TCP || query->protocol == IPPROTO_UDP ||
		 query->protocol == IPPROTO_SCTP_NUMBER;
	if (probes & PROBE_ANY_PROTOCOL) {
		key.identity = query->identity;
		policy_consider(&key, &best);
		key.identity = IDENTITY_ANY;
		policy_consider(&key, &best);
	}
	if (ported) {
		key.protocol = query->protocol;
		for (__u32 length = 0; length <= 16; length++) {
			if (!(probes & (1U << length)))
				continue;
			key.port = query->port & (__u16)(0xffff0000U >> length);
			key.port_length = length;
			key.identity = query->identity;
			policy_consider(&key, &best);
			key.identity = IDENTITY_ANY;
			policy_consider(&key, &best);
		}
	}
	if (best.verdict != 0) {
		query->rule = best.rule;
		return best.verdict == VERDICT_ALLOW ? FORWARDED : POLICY_DENIED_EXPLICIT;
	}
	if (set->flags & RULE_SET_ISOLATED) {
		query->rule = set->rule;
		return POLICY_DENIED;
	}
	if (query->default_deny) {
		query->rule = RULE_DEFAULT_DENY;
		return POLICY_DENIED;
	}
	return FORWARDED;
}
