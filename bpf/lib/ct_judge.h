/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What policy says of a connection: when it opens, and of one that lives when policy, or whoever is at its other end, is another. */
#pragma once

#include "ct_state.h"
#include "maps.h"
#include "names.h"
#include "packet.h"
#include "place.h"
#include "policy.h"
#include "proxied.h"
#include "track.h"
#include "transport.h"

/* What policy knows of the connection's kind: the destination's port, or the only ICMP message that opens anything. */
static __always_inline __u16 ct_policy_port(const struct ct_key *key, bool egress)
{
	if (key->protocol == IPPROTO_ICMP)
		return ICMP_ECHO_REQUEST << 8;
	if (key->protocol == IPPROTO_ICMPV6_NUMBER)
		return ICMPV6_ECHO_REQUEST << 8;
	return bpf_ntohs(egress ? key->remote_port : key->local_port);
}

/* Whether of what the kernel could read something is the proxy's: a part that only it can read, or all of a new connection. */
SUBPROGRAM int ct_proxy_reads(const struct endpoint *endpoint, const struct track *track, __u32 opens)
{
	if (!endpoint || !track)
		return 1;
	if (track->query.requests & ASKED_PROXY)
		return 1;
	return opens && (proxied_by_port(endpoint, track->query.port) || proxied_by_client(&track->key));
}

/*
 * Asks policy about a connection that was, or (`opens`) would be, opened in `direction` between the endpoint and `identity`.
 * Connections to a port that the proxy is to read from now on, and that the kernel reads, stay with the kernel.
 */
static __always_inline enum drop_reason ct_judge(const struct endpoint *endpoint, struct track *track, __u32 direction,
						 struct place *place, const bool opens)
{
	bool egress = direction == DIRECTION_EGRESS;
	struct policy_query *query = &track->query;
	enum drop_reason reason, lenient;

	track->reader = READER_NONE;
	__builtin_memset(query, 0, sizeof(*query));
	query->admin_set = egress ? endpoint->egress_admin_set : endpoint->ingress_admin_set;
	query->network_set = egress ? endpoint->egress_set : endpoint->ingress_set;
	query->mesh_set = egress ? endpoint->egress_mesh_set : endpoint->ingress_mesh_set;
	query->identity = track->identity;
	query->port = ct_policy_port(&track->key, egress);
	query->protocol = track->key.protocol;
	if (track->flags & TRACK_NOT_READY)
		return ENDPOINT_NOT_READY;
	if (track->identity == IDENTITY_ANY)
		return UNKNOWN_PEER;
	if (egress && endpoint->names != 0)
		query->names = name_recall(endpoint->id, &track->key.remote, track->name);
	if (egress && (track->flags & TRACK_BY_NAME)) {
		query->admin_set = track->sets[0];
		query->network_set = track->sets[1];
		query->mesh_set = track->sets[2];
	}
	reason = policy_decide(query);
	place->rule = query->rule;
	place->flags = query->flags;
	track->name = query->name;
	if (query->flags & POLICY_KEEP)
		track->flags |= TRACK_KEEPS;
	if (!egress && (query->requests & ASKED_REQUESTS) && track->key.protocol == IPPROTO_TCP &&
	    (reason == POLICY_DENIED || reason == POLICY_DENIED_EXPLICIT)) {
		query->request = REQUEST_LENIENT;
		lenient = policy_decide(query);
		if (lenient == FORWARDED || (__u32)lenient == POLICY_PROXIED) {
			place->rule = query->rule;
			/* Where somebody reads, it is each request that is logged. */
			place->flags = query->flags & ~POLICY_LOG;
			track->reader = READER_KERNEL;
			reason = ct_proxy_reads(endpoint, track, opens) ? POLICY_PROXIED : lenient;
		}
	}
	if ((__u32)reason == POLICY_PROXIED) {
		track->reader = READER_PROXY;
		place->flags &= ~POLICY_LOG;
		/* The proxy takes nothing else. */
		reason = track->key.protocol == IPPROTO_TCP ? FORWARDED : POLICY_DENIED;
	}
	track->judged = reason ? 0 : direction;
	return reason;
}

/* Whether a packet brings the pod what policy wants to have read, and nobody reads it. */
static __always_inline bool ct_is_unread(const struct packet *packet, __u32 flags)
{
	return (flags & (CT_BY_REQUEST | CT_READ)) == CT_BY_REQUEST &&
	       packet->length > (__u32)(packet->l4 - packet->l3) + packet->l4_header;
}

/*
 * Whether a packet of a connection that is denied by now passes all the same. Where what denies keeps connections that
 * were admitted: every packet between the same two, but one that opens. Where it resets them: the reset itself.
 */
static __always_inline bool ct_outlives(struct ct_entry *entry, const struct packet *packet, const struct track *track,
					__u32 revision, struct place *place)
{
	if ((place->flags & POLICY_KEEP) && entry->remote_identity == track->identity && !ct_is_syn(packet)) {
		__sync_fetch_and_or(&entry->flags, CT_KEPT);
		entry->revision = revision;
	} else if (!(place->flags & POLICY_RESET) || packet->protocol != IPPROTO_TCP ||
		   !(packet->tcp_flags & TCP_RST)) {
		return false;
	}
	place->rule = entry->rule;
	place->flags = 0;
	return true;
}

/*
 * Whether a connection that was let in unread stays so, while policy would let it in for its requests by now. As above, but
 * nothing is denied.
 */
static __always_inline bool ct_stays_unread(struct ct_entry *entry, const struct packet *packet,
					    const struct track *track, __u32 revision, struct place *place)
{
	if (track->reader == READER_NONE || !(track->flags & TRACK_KEEPS) ||
	    (entry->flags & (CT_BY_REQUEST | CT_PROXIED)) || entry->remote_identity != track->identity || ct_is_syn(packet))
		return false;
	__sync_fetch_and_or(&entry->flags, CT_KEPT);
	entry->revision = revision;
	place->rule = entry->rule;
	place->flags = 0;
	return true;
}

/*
 * Notes what judging a connection again has come to, where that lets it pass. What must go to the proxy and does not, or
 * goes there as somebody else, is over.
 */
SUBPROGRAM int ct_judged(struct ct_entry *entry, const struct track *track, const struct place *place, __u32 revision)
{
	bool proxied;

	if (!entry || !track || !place)
		return -1;
	proxied = entry->flags & CT_PROXIED;
	if (proxied ? entry->remote_identity != track->identity &&
			      (entry->class == 0 || entry->class != proxied_class(track->identity))
		    : track->reader == READER_PROXY)
		__sync_fetch_and_or(&entry->flags, CT_BROKEN);
	entry->rule = place->rule;
	entry->name = track->name;
	entry->remote_identity = track->identity;
	entry->revision = revision;
	/* Atomically: another CPU may say meanwhile that requests are read. */
	__sync_fetch_and_and(&entry->flags, ~(CT_KEPT | CT_BY_REQUEST));
	if (track->reader == READER_KERNEL && !proxied)
		__sync_fetch_and_or(&entry->flags, CT_BY_REQUEST);
	return 0;
}
