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

#include "maps.h"
#include "names.h"
#include "packet.h"
#include "place.h"
#include "policy.h"
#include "proxied.h"
#include "transport.h"

#define SECOND_NS 1000000000ULL
#define CT_DEFAULT_OPENING_NS (60 * SECOND_NS)
#define CT_DEFAULT_TCP_ESTABLISHED_NS (21600 * SECOND_NS)
#define CT_DEFAULT_TCP_HALF_CLOSED_NS (120 * SECOND_NS)
#define CT_DEFAULT_CLOSED_NS (10 * SECOND_NS)
#define CT_DEFAULT_UDP_NS (180 * SECOND_NS)
#define CT_DEFAULT_SCTP_NS (300 * SECOND_NS)
#define CT_DEFAULT_ICMP_NS (30 * SECOND_NS)

#define SCTP_ABORT 6
#define SCTP_SHUTDOWN_COMPLETE 14

/* What the hook knows of the packet's connection, and what came out of tracking it. */
#define TRACK_EXEMPT (1U << 0)     /* in: may open a connection without policy: its own node, or itself (TRACK_SELF) */
#define TRACK_SELF (1U << 1)
#define TRACK_REMOTE_POD (1U << 2) /* in: the other end is a pod, so replies need proof */
#define TRACK_UNPROVEN (1U << 3)   /* in: arrived without proof, so it can only be a reply */
#define TRACK_NOT_READY (1U << 4)  /* in: the endpoint's policy is not loaded; only its own node reaches it */
#define TRACK_BY_NAME (1U << 5)    /* in: judge this packet, and by `sets`. out: a reply on a connection that is judged so */
#define TRACK_READ (1U << 6)       /* out: its requests are read */
#define TRACK_FROM_PROXY (1U << 7) /* in: the packet comes from the proxy, in the name of its source */
#define TRACK_PROXIED (1U << 8)    /* out: the packet is to go to the proxy */
#define TRACK_KEEPS (1U << 9)      /* out: what does not let it in unread keeps connections that were */

/* Who reads the requests of a connection. */
enum ct_reader {
	READER_NONE = 0,
	READER_KERNEL = 1, /* or nobody, and then no data passes: http.bpf.c */
	READER_PROXY = 2,
};

struct track {
	struct ct_key key;
	__u32 flags;
	__u32 service;    /* in: through which service it goes, 0: none. out: whose address a reply must bear */
	__u32 identity;   /* in: of the other end */
	__u32 reader;     /* out: enum ct_reader; with one, policy allows it for the requests that are made on it */
	__u32 found;      /* out: it belongs to a live connection */
	__u32 reply;      /* out: it answers the connection's originator */
	__u32 event;      /* out: enum event_kind that is due, 0: none */
	__u32 judged;     /* out: enum direction in which policy was asked about it and let it pass, 0: it was not asked */
	__u32 name;       /* in and out: the pattern by which it was admitted, 0: none */
	__u32 dns;        /* of the hook's own: enum dns_read */
	__u32 sets[3];    /* in: admin, network and mesh set, with TRACK_BY_NAME */
	struct policy_query query; /* of the connection's own; here because it is not for the stack */
	__u64 expires_ns;	   /* out */
};

static __always_inline __u64 ct_timeout(const struct config *settings, __u8 protocol, __u8 state)
{
	if (state == CT_CLOSED)
		return settings->closed_ns ?: CT_DEFAULT_CLOSED_NS;
	if (state == CT_HALF_CLOSED)
		return settings->tcp_half_closed_ns ?: CT_DEFAULT_TCP_HALF_CLOSED_NS;
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6_NUMBER)
		return settings->icmp_ns ?: CT_DEFAULT_ICMP_NS;
	if (state == CT_OPENING)
		return settings->opening_ns ?: CT_DEFAULT_OPENING_NS;
	if (protocol == IPPROTO_TCP)
		return settings->tcp_established_ns ?: CT_DEFAULT_TCP_ESTABLISHED_NS;
	if (protocol == IPPROTO_SCTP_NUMBER)
		return settings->sctp_ns ?: CT_DEFAULT_SCTP_NS;
	return settings->udp_ns ?: CT_DEFAULT_UDP_NS;
}

static __always_inline bool ct_is_syn(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether a packet that belongs to no connection may start one. */
static __always_inline enum drop_reason ct_may_open(const struct packet *packet)
{
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return FRAGMENT_WITHOUT_FIRST;
	if (packet->flags & PACKET_REPLY_ONLY)
		return CT_INVALID;
	if (packet->protocol == IPPROTO_TCP &&
	    ((packet->tcp_flags & TCP_RST) || (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK)))
		return CT_INVALID;
	return FORWARDED;
}

/* The state after one more packet, which its flags are already noted of. */
static __always_inline __u8 ct_next_state(const struct packet *packet, const struct ct_entry *entry, bool reply)
{
	if (packet->protocol == IPPROTO_TCP) {
		if (packet->tcp_flags & TCP_RST)
			return CT_CLOSED;
		if (entry->tcp_flags[0] & entry->tcp_flags[1] & TCP_FIN)
			return CT_CLOSED;
		if ((entry->tcp_flags[0] | entry->tcp_flags[1]) & TCP_FIN)
			return CT_HALF_CLOSED;
	}
	if (packet->protocol == IPPROTO_SCTP_NUMBER && !(packet->flags & PACKET_LATER_FRAGMENT) &&
	    (packet->icmp_type == SCTP_ABORT || packet->icmp_type == SCTP_SHUTDOWN_COMPLETE))
		return CT_CLOSED;
	return reply && entry->state == CT_OPENING ? CT_ESTABLISHED : entry->state;
}

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

static __always_inline void ct_account(const struct config *settings, const struct packet *packet, struct track *track,
				       struct ct_entry *entry, __u64 now)
{
	__u32 way = track->reply ? 1 : 0;
	__u8 state = entry->state;
	__u8 next;

	__sync_fetch_and_add(&entry->packets[way], 1);
	__sync_fetch_and_add(&entry->bytes[way], packet->length);
	if (packet->tcp_flags & ~entry->tcp_flags[way])
		entry->tcp_flags[way] |= packet->tcp_flags;
	next = ct_next_state(packet, entry, track->reply);
	/* A closed connection's last packets do not keep it. */
	if (next != CT_CLOSED || state != CT_CLOSED)
		entry->expires_ns = now + ct_timeout(settings, packet->protocol, next);
	if (next != state) {
		entry->state = next;
		if (next == CT_CLOSED)
			track->event = EVENT_END;
	} else if (settings->report_interval_ns != 0 && now - entry->last_report_ns >= settings->report_interval_ns) {
		entry->last_report_ns = now;
		track->event = EVENT_PERIODIC;
	}
}

/* Whether `entry` is this packet's connection: still alive, and not closed while the packet opens the next one. */
static __always_inline bool ct_is_live(const struct ct_entry *entry, const struct packet *packet, __u32 direction,
				       __u64 now)
{
	if (entry->expires_ns < now)
		return false;
	/* A SYN against the direction of the connection opens one of its own, and is judged as that. */
	return !ct_is_syn(packet) || (entry->direction == direction && entry->state != CT_CLOSED);
}

/*
 * Whether a packet may take another way to the backend (directly, or through another service) than its ports took before.
 * A stream that lives holds its way, since a reply bears the address of one way only. One that nobody answered is given
 * up by whoever opens another; and where there are no streams, replies go by the way of the newest request: a client's
 * ports come round again long before such an entry ends.
 */
static __always_inline bool ct_may_change_way(const struct ct_entry *entry, const struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_SCTP_NUMBER)
		return entry->state == CT_CLOSED || (entry->state == CT_OPENING && packet->protocol == IPPROTO_TCP &&
						     ct_is_syn(packet));
	return true;
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
