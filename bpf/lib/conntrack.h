/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections, seen from one endpoint: one entry and one lookup for both directions. A connection lives from the
 * packet that policy let through until its timeout; its replies pass because it lives.
 *
 * What may open a connection: a TCP SYN, any UDP or SCTP packet, an ICMP echo request; and a TCP packet from the middle
 * of a connection (neither SYN nor RST), if policy allows a connection in its direction. So what the table forgot (an
 * eviction, a new table) goes on with the originator's next packet, while nothing passes that policy would not have
 * let open. A SYN-ACK, a RST and an echo reply answer something, and never open.
 *
 * A connection whose revision is not the current one, or whose peer now proves another identity, is judged again, in the
 * direction in which it was opened, before the packet passes. Judged against it, the entry stays: otherwise the
 * answering side's next packet would count as opening a connection the other way. What denies it may ask for it to be
 * kept all the same, or reset (ct_outlives).
 *
 * Who goes by way of the proxy does so from the first packet to the last (CT_PROXIED): the proxy has a connection of its
 * own with each end, which no packet from the other would fit. So policy that sends to the proxy what does not go there
 * ends it, and what does go there stays. The proxy judges for who the other end was at first: another number of the same
 * class (proxied.h) is as good, another class ends the connection.
 */
#pragma once

#include "ct_judge.h"
#include "ct_state.h"
#include "maps.h"
#include "packet.h"
#include "place.h"
#include "proxied.h"
#include "track.h"

/* Notes the connection of a packet that may open it, judged under `revision`. `flags` are CT_…. */
SUBPROGRAM enum drop_reason ct_enter(const struct packet *packet, struct track *track, const struct place *place,
				     __u32 revision, __u32 flags)
{
	struct config *settings = config_get();
	struct ct_entry entry = {};
	struct ct_key key;
	__u64 now;

	if (!settings || !packet || !track || !place)
		return ENDPOINT_NOT_READY;
	if (track->flags & TRACK_REMOTE_POD)
		flags |= CT_REMOTE_POD;
	if (track->flags & TRACK_BY_NAME)
		flags |= CT_BY_NAME;
	if (track->reader == READER_KERNEL)
		flags |= CT_BY_REQUEST;
	if (track->reader == READER_PROXY) {
		if (settings->proxy_ifindex == 0)
			return PROXY_ABSENT;
		flags |= CT_PROXIED;
		entry.class = proxied_class(track->identity);
		if (!(track->flags & TRACK_FROM_PROXY))
			track->flags |= TRACK_PROXIED;
	}
	/* Data with the SYN: the client sends it again once there is a connection. */
	if (ct_is_unread(packet, flags))
		return HTTP_UNREAD;
	now = bpf_ktime_get_coarse_ns();
	entry.flags = flags;
	entry.revision = revision;
	entry.name = track->name;
	entry.expires_ns = now + ct_timeout(settings, packet->protocol, CT_OPENING);
	entry.created_ns = now;
	entry.last_report_ns = now;
	entry.packets[0] = 1;
	entry.bytes[0] = packet->length;
	entry.rule = place->rule;
	entry.remote_identity = track->identity;
	entry.service = track->service;
	entry.direction = place->direction;
	entry.state = CT_OPENING;
	entry.tcp_flags[0] = packet->tcp_flags;
	key = track->key;
	if (bpf_map_update_elem(&ct, &key, &entry, BPF_ANY) < 0)
		return CT_FULL;
	track->event = EVENT_NEW;
	track->expires_ns = entry.expires_ns;
	return FORWARDED;
}

/*
 * Opens the connection of a packet that ct_track found none for, if policy allows it; place->rule becomes the rule that
 * decided, and place->direction is the direction in which it is opened.
 */
SUBPROGRAM enum drop_reason ct_open(const struct endpoint *endpoint, const struct packet *packet, struct track *track,
				    struct place *place)
{
	struct config *settings = config_get();
	enum drop_reason reason;
	__u32 revision;

	if (!settings || !endpoint || !packet || !track || !place)
		return ENDPOINT_NOT_READY;
	reason = ct_may_open(packet);
	if (reason)
		return reason;
	if (track->flags & TRACK_UNPROVEN)
		return NO_PROOF;
	/* Read before the maps are: what is judged while they change is judged again. */
	revision = *(volatile __u32 *)&settings->revision;
	if (track->flags & TRACK_EXEMPT) {
		place->rule = track->flags & TRACK_SELF ? RULE_SELF : RULE_OWN_NODE;
		return ct_enter(packet, track, place, revision, CT_EXEMPT);
	}
	reason = ct_judge(endpoint, track, place->direction, place, true);
	return reason ? reason : ct_enter(packet, track, place, revision, 0);
}

/* What is out of the ordinary with an entry whose connection may go on. */
SUBPROGRAM enum drop_reason ct_mind(const struct ct_entry *entry, const struct packet *packet, struct track *track)
{
	bool broken;

	if (!entry || !packet || !track)
		return CT_INVALID;
	broken = entry->flags & CT_BROKEN;
	/* A reset of what is broken is for one of the pods: what the proxy is told goes there by itself (refuse.h). */
	if (broken && (packet->tcp_flags & TCP_RST))
		return FORWARDED;
	if (entry->flags & CT_READ)
		track->flags |= TRACK_READ;
	if (entry->flags & CT_PROXIED) {
		track->name = entry->name;
		if (!(track->flags & TRACK_FROM_PROXY))
			track->flags |= TRACK_PROXIED;
	}
	return broken ? HTTP_UNREAD : FORWARDED;
}

/*
 * Finds the connection of a packet and takes it into account. place->direction is the hook's; place->rule becomes the
 * rule that decided. FORWARDED with track->found 0 means that there is none: ask ct_open.
 */
SUBPROGRAM enum drop_reason ct_track(const struct endpoint *endpoint, const struct packet *packet, struct track *track,
				     struct place *place)
{
	struct config *settings = config_get();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct ct_entry *entry;
	struct ct_key key;
	enum drop_reason reason;
	__u32 revision;
	bool exempt;

	if (!settings || !endpoint || !packet || !track || !place)
		return ENDPOINT_NOT_READY;
	key = track->key;
	entry = bpf_map_lookup_elem(&ct, &key);
	if (!entry || !ct_is_live(entry, packet, place->direction, now))
		return FORWARDED;
	track->reply = entry->direction != place->direction;
	if (!track->reply && entry->service != track->service && ct_may_change_way(entry, packet))
		return FORWARDED;
	track->found = 1;
	place->rule = entry->rule;
	place->service = entry->service;
	if ((track->flags & TRACK_UNPROVEN) && (!track->reply || (entry->flags & CT_REMOTE_POD)))
		return NO_PROOF;
	if (track->reply)
		track->service = entry->service;
	else if (entry->service != track->service)
		return SERVICE_CONFLICT;
	exempt = (entry->flags & CT_EXEMPT) || (!track->reply && (track->flags & TRACK_EXEMPT));
	/* Not yet loaded, a pod answers its node's probes and nobody else. */
	if ((track->flags & TRACK_NOT_READY) && !exempt)
		return ENDPOINT_NOT_READY;
	revision = *(volatile __u32 *)&settings->revision;
	/* What lets an answer in is its question, which was judged. */
	if (track->reply && (entry->flags & CT_BY_NAME) && endpoint->names != 0 &&
	    entry->remote_identity == track->identity) {
		exempt = true;
		track->flags |= TRACK_BY_NAME;
	}
	if (!exempt && (entry->revision != revision || entry->remote_identity != track->identity ||
			(track->flags & TRACK_BY_NAME))) {
		track->name = entry->name;
		/* Kept there, as the stack is full (Linux 6.1 rounds each of seven calls up). */
		track->expires_ns = now;
		reason = ct_judge(endpoint, track, entry->direction, place, false);
		now = track->expires_ns;
		if (reason && ((track->flags & TRACK_BY_NAME) || (reason != POLICY_DENIED && reason != POLICY_DENIED_EXPLICIT) ||
			       !ct_outlives(entry, packet, track, revision, place))) {
			if ((entry->flags & CT_PROXIED) && (place->flags & POLICY_RESET)) {
				__sync_fetch_and_or(&entry->flags, CT_BROKEN);
				track->flags |= TRACK_PROXIED;
			}
			return reason;
		}
		if (!reason && !ct_stays_unread(entry, packet, track, revision, place))
			ct_judged(entry, track, place, revision);
	}
	if (!exempt && !track->reply && ct_is_unread(packet, entry->flags))
		return HTTP_UNREAD;
	if (entry->flags & (CT_BROKEN | CT_READ | CT_PROXIED)) {
		reason = ct_mind(entry, packet, track);
		if (reason)
			return reason;
	}
	/* From a pod to the proxy it was counted. */
	if (!(track->flags & TRACK_FROM_PROXY) || !(entry->flags & CT_PROXIED))
		ct_account(settings, packet, track, entry, now);
	track->expires_ns = entry->expires_ns;
	return FORWARDED;
}

/*
 * Whether an ICMP error about the connection track->key may pass. It changes nothing of the connection, and it is not
 * asked of policy: it passes while the connection stands as the current revision judged it, which the packet that the
 * error is about has seen to. Without proof it comes from a router of the world, about a connection to the world.
 */
SUBPROGRAM enum drop_reason ct_related(struct track *track, struct place *place)
{
	struct config *settings = config_get();
	struct ct_entry *entry;
	struct ct_key key;

	if (!settings || !track || !place)
		return CT_INVALID;
	key = track->key;
	entry = bpf_map_lookup_elem(&ct, &key);
	if (!entry || entry->expires_ns < bpf_ktime_get_coarse_ns())
		return CT_INVALID;
	place->rule = entry->rule;
	place->service = entry->service;
	track->service = entry->service;
	if (entry->flags & CT_PROXIED)
		track->flags |= TRACK_PROXIED;
	if ((track->flags & TRACK_UNPROVEN) && (entry->flags & CT_REMOTE_POD))
		return NO_PROOF;
	if (entry->flags & CT_EXEMPT)
		return FORWARDED;
	if (track->flags & TRACK_NOT_READY)
		return ENDPOINT_NOT_READY;
	return entry->revision == settings->revision ? FORWARDED : CT_INVALID;
}
