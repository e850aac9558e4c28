/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What policy says of one request, asked anew for each: a change counts from the next request on. */
#pragma once

#include "http_lex.h"
#include "http_maps.h"
#include "http_match.h"
#include "policy.h"

/* Asks for the sets of the pod's ingress. @returns Whether policy can be asked at all; `audited`: also what is audited. */
static __always_inline bool http_query(const struct http_stream *stream, struct policy_query *query, __u32 *audited)
{
	__u32 ifindex = stream->ifindex;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
	struct ct_entry *entry = bpf_map_lookup_elem(&ct, &stream->connection);

	if (!endpoint || !entry || endpoint->id != stream->connection.endpoint || (endpoint->flags & ENDPOINT_REVOKED) ||
	    !(endpoint->flags & ENDPOINT_READY))
		return false;
	query->admin_set = endpoint->ingress_admin_set;
	query->network_set = endpoint->ingress_set;
	query->mesh_set = endpoint->ingress_mesh_set;
	query->identity = entry->remote_identity;
	query->port = bpf_ntohs(stream->connection.local_port);
	query->protocol = IPPROTO_TCP;
	*audited = endpoint->flags & ENDPOINT_AUDITED;
	return true;
}

/* Puts what a rule set's matcher says of the request where policy looks for it. */
static __always_inline bool http_fill(struct http_request *request, __u32 set, __u32 stage)
{
	struct http_bits *bits = bpf_map_lookup_elem(&http_bits, &stage);

	if (set == 0)
		return true;
	if (!bits || http_match(request, set) < 0)
		return false;
	*bits = request->bits;
	return true;
}

/*
 * Asks policy about the request. What it is stands in a place of this CPU's meanwhile: whoever is interrupted by another
 * reader asks again.
 */
static __always_inline enum drop_reason http_decide(struct http_request *request, struct policy_query *query)
{
	__u32 zero = 0;
	__u64 *turns = bpf_map_lookup_elem(&http_turns, &zero);
	enum drop_reason reason;
	__u64 turn;

	if (!turns)
		return POLICY_DENIED;
	query->request = REQUEST_READ;
	for (__u32 again = 0; again < 3; again++) {
		turn = __sync_fetch_and_add(turns, 1) + 1;
		if (!http_fill(request, query->admin_set, STAGE_ADMIN) ||
		    !http_fill(request, query->network_set, STAGE_NETWORK) ||
		    !http_fill(request, query->mesh_set, STAGE_MESH))
			return POLICY_DENIED;
		reason = policy_decide(query);
		if (*(volatile __u64 *)turns == turn)
			return reason;
	}
	return POLICY_DENIED;
}

/* Reads and judges the head in `request`. */
static __always_inline void http_judge(const struct http_stream *stream, struct http_request *request)
{
	struct http_judgement *judgement = &request->judgement;
	struct policy_query *query = &request->query;
	struct config *settings = config_get();
	enum drop_reason reason = http_lex(request);

	judgement->reason = reason;
	if (reason)
		return;
	judgement->reason = HTTP_DENIED;
	__builtin_memset(query, 0, sizeof(*query));
	if (!settings || !http_query(stream, query, &judgement->audited))
		return;
	judgement->identity = query->identity;
	judgement->sets[0] = query->admin_set;
	judgement->sets[1] = query->network_set;
	judgement->sets[2] = query->mesh_set;
	judgement->revision = *(volatile __u32 *)&settings->revision;
	reason = http_decide(request, query);
	judgement->rule = query->rule;
	judgement->flags = query->flags;
	if (reason)
		return;
	/* What comes after it is not read any more: policy must allow that whatever it is. */
	if (request->flags & HTTP_UPGRADES) {
		query->request = REQUEST_STRICT;
		if (policy_decide(query) != FORWARDED) {
			judgement->rule = query->rule;
			judgement->flags = query->flags;
			return;
		}
	}
	judgement->reason = FORWARDED;
}

/*
 * Asks whether audited policies would have denied the request in `request`, which was let through and is still there, as is
 * in its query who asked for it.
 * @returns Whether; `judgement` then says by which rule.
 */
SUBPROGRAM int http_would_deny(const struct http_stream *stream, struct http_request *request)
{
	struct http_judgement *judgement;
	struct endpoint_audit *sets;
	struct policy_query *query;
	enum drop_reason reason;
	__u32 id;

	if (!stream || !request)
		return 0;
	id = stream->connection.endpoint;
	sets = bpf_map_lookup_elem(&audits, &id);
	query = &request->query;
	if (!sets)
		return 0;
	query->admin_set = sets->ingress_admin_set;
	query->network_set = sets->ingress_set;
	query->mesh_set = sets->ingress_mesh_set;
	reason = http_decide(request, query);
	if (reason != POLICY_DENIED && reason != POLICY_DENIED_EXPLICIT)
		return 0;
	judgement = &request->judgement;
	judgement->rule = query->rule;
	judgement->flags = query->flags;
	return 1;
}
